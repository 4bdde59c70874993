"""A code interpreter, and a short way to call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backends.context import CallContext
from backends.ports import Resource, ToolFile, ToolResult
from backends.sandbox.runtime import GROUP, TOOL, CodeInterpreter
from backends.sandbox.settings import CodeInterpreterSettings


class Desk:
    """Runs code as a registered tool does."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.runtime = CodeInterpreter(CodeInterpreterSettings(**options), directory)

    def run(self, code: str, *files: ToolFile, context: CallContext | None = None) -> ToolResult:
        tool = Resource("tool", TOOL, "code-interpreter", TOOL)
        group = Resource("tool_group", GROUP, "code-interpreter", GROUP)
        return self.runtime.invoke(context or CallContext(request_id="r"), tool, group, {"code": code}, files)

    def printed(self, code: str, *files: ToolFile) -> str:
        """What the code writes to standard output; it must end well."""
        result = self.run(code, *files)
        assert result.error_message is None, result.content
        content = str(result.content)
        return content.partition("[stdout]\n")[2].rpartition("\n[/stdout]")[0]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("slots"), timeout_s=10)
