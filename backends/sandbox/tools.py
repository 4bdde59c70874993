"""The tool `code_interpreter`: ToolRuntime on the sandbox."""

from __future__ import annotations

from collections.abc import Sequence

from backends.context import CallContext
from backends.errors import BadRequest
from backends.ports import JsonObject, Resource, ToolFile, ToolResult
from backends.sandbox.sandbox import Sandbox
from generated.models import URL, ToolDef, ToolParameter

GROUP = "builtin::code_interpreter"
TOOL = ToolDef(
    name="code_interpreter",
    description="Run Python code. Files lie in the working directory; print what you want to see.",
    parameters=[ToolParameter(name="code", parameter_type="string", description="The code.", required=True)],
    metadata={},
)


class CodeInterpreter:
    """Runs Python; each call is a process of its own."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def list_tools(self, context: CallContext, toolgroup_id: str, endpoint: URL | None) -> list[ToolDef]:
        if toolgroup_id != GROUP or endpoint is not None:
            raise BadRequest(f"this provider serves the tool group `{GROUP}`", where="/toolgroup_id")
        self._sandbox.check()
        return [TOOL.model_copy(deep=True)]

    def invoke(
        self, context: CallContext, tool: Resource, group: Resource, arguments: JsonObject, files: Sequence[ToolFile]
    ) -> ToolResult:
        code = arguments.get("code")
        if not isinstance(code, str):
            raise BadRequest("`code` must be a text", where="/kwargs/code")
        run = self._sandbox.run(context, code, files)
        failed = run.ended or (f"it ended with exit code {run.code}" if run.code else "")
        parts = ["completed" if not failed else f"failed: {failed}"]
        parts += [
            f"[{name}]\n{text}\n[/{name}]" for name, text in (("stdout", run.stdout), ("stderr", run.stderr)) if text
        ]
        return ToolResult(
            "\n".join(parts),
            error_message=(run.stderr.strip().rpartition("\n")[2] or failed) if failed else None,
            error_code=1 if failed else None,
            files=run.files,
        )
