"""A fixed set of tools: for tests and for trying out tool groups."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence

from backends.context import CallContext
from backends.errors import BadRequest
from backends.ports import JsonObject, Resource, ToolFile, ToolResult
from generated.models import URL, ToolDef, ToolParameter

Run = Callable[[JsonObject, Sequence[ToolFile]], ToolResult]

_ECHO = ToolDef(
    name="echo",
    description="Answers with the text it was given.",
    parameters=[ToolParameter(name="text", parameter_type="string", description="Any text.", required=True)],
    metadata={},
)
_CLOCK = ToolDef(name="clock", description="Tells the time.", parameters=[], metadata={})
_REPEAT = ToolDef(name="repeat", description="Answers with its arguments.", parameters=[], metadata={})
BUILTIN: Mapping[str, Sequence[ToolDef]] = {"builtin::memory": (_ECHO, _CLOCK), "builtin::spare": (_REPEAT,)}


class MemoryToolRuntime:
    """ToolRuntime over groups given from outside; `put` changes what a group offers.

    An MCP endpoint offers what was put under its uri. `echo` answers with its text and `clock` with noon; any other
    tool answers with its arguments as JSON, or as `put` says.
    """

    def __init__(self, groups: Mapping[str, Sequence[ToolDef]] = BUILTIN) -> None:
        self._groups = {name: list(tools) for name, tools in groups.items()}
        self._runs: dict[str, Run] = {"echo": _echo, "clock": lambda _arguments, _files: ToolResult("12:00")}
        self._lock = threading.Lock()

    def put(self, group: str, tools: Sequence[ToolDef], runs: Mapping[str, Run] | None = None) -> None:
        """Let the group, or the MCP endpoint of this uri, offer these tools from now on. runs: by the tool's name."""
        with self._lock:
            self._groups[group] = list(tools)
            self._runs |= runs or {}

    def list_tools(self, context: CallContext, toolgroup_id: str, endpoint: URL | None) -> list[ToolDef]:
        name = toolgroup_id if endpoint is None else endpoint.uri
        with self._lock:
            if name not in self._groups:
                known = ", ".join(f"`{group}`" for group in sorted(self._groups)) or "none"
                where = "/toolgroup_id" if endpoint is None else "/mcp_endpoint/uri"
                raise BadRequest(f"no tool group `{name}` at this provider, known: {known}", where=where)
            return [tool.model_copy(deep=True) for tool in self._groups[name]]

    def invoke(
        self, context: CallContext, tool: Resource, group: Resource, arguments: JsonObject, files: Sequence[ToolFile]
    ) -> ToolResult:
        with self._lock:
            run = self._runs.get(tool.identifier)
        if run is None:
            return ToolResult(json.dumps(arguments, sort_keys=True))
        return run(arguments, files)


def _echo(arguments: JsonObject, _files: Sequence[ToolFile]) -> ToolResult:
    if not isinstance(arguments.get("text"), str):
        raise BadRequest("echo needs the argument `text`, a string", where="/kwargs/text")
    return ToolResult(arguments["text"])
