"""A fixed catalogue of tools: for tests and for trying out tool groups."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from backends.context import CallContext
from backends.errors import BadRequest
from generated.models import URL, ToolDef, ToolParameter

_ECHO = ToolDef(
    name="echo",
    description="Answers with the text it was given.",
    parameters=[ToolParameter(name="text", parameter_type="string", description="Any text.", required=True)],
    metadata={},
)
_CLOCK = ToolDef(name="clock", description="Tells the time.", parameters=[], metadata={})
BUILTIN: Mapping[str, Sequence[ToolDef]] = {"builtin::memory": (_ECHO, _CLOCK)}


class MemoryToolCatalog:
    """ToolCatalog over groups given from outside; `put` changes what a group offers.

    An MCP endpoint offers what was put under its uri.
    """

    def __init__(self, groups: Mapping[str, Sequence[ToolDef]] = BUILTIN) -> None:
        self._groups = {name: list(tools) for name, tools in groups.items()}
        self._lock = threading.Lock()

    def ping(self) -> None:
        return

    def close(self) -> None:
        return

    def put(self, group: str, tools: Sequence[ToolDef]) -> None:
        """Let the group, or the MCP endpoint of this uri, offer these tools from now on."""
        with self._lock:
            self._groups[group] = list(tools)

    def list_tools(self, context: CallContext, toolgroup_id: str, endpoint: URL | None) -> list[ToolDef]:
        name = toolgroup_id if endpoint is None else endpoint.uri
        with self._lock:
            if name not in self._groups:
                known = ", ".join(f"`{group}`" for group in sorted(self._groups)) or "none"
                where = "/toolgroup_id" if endpoint is None else "/mcp_endpoint/uri"
                raise BadRequest(f"no tool group `{name}` at this provider, known: {known}", where=where)
            return [tool.model_copy(deep=True) for tool in self._groups[name]]
