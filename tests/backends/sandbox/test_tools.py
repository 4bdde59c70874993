from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backends.context import CallContext
from backends.errors import BadRequest
from backends.ports import Resource, ToolFile, ToolResult
from backends.sandbox.sandbox import Sandbox
from backends.sandbox.settings import SandboxSettings
from backends.sandbox.tools import GROUP, CodeInterpreter
from generated.models import URL

CONTEXT = CallContext(request_id="test")
GROUP_ROW = Resource("tool_group", GROUP, "code-interpreter", GROUP)
TOOL_ROW = Resource("tool", "code_interpreter", "code-interpreter", "code_interpreter")
needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


def interpreter(**options: object) -> CodeInterpreter:
    return CodeInterpreter(Sandbox(SandboxSettings.model_validate(options)))


def run(code: str, *files: ToolFile) -> ToolResult:
    return interpreter().invoke(CONTEXT, TOOL_ROW, GROUP_ROW, {"code": code}, files)


@needs_bwrap
def test_what_code_prints_is_the_answer() -> None:
    result = run("import sys; print(6 * 7); print('careful', file=sys.stderr)")
    assert result.content == "completed\n[stdout]\n42\n\n[/stdout]\n[stderr]\ncareful\n\n[/stderr]"
    assert result.error_message is None


@needs_bwrap
def test_what_fails_is_told_to_who_can_mend_it() -> None:
    result = run("print('before')\n1/0")
    assert result.error_message == "ZeroDivisionError: division by zero"
    assert result.error_code == 1
    assert "before" in str(result.content)
    assert "line 2" in str(result.content)
    assert "SyntaxError" in str(run("def").content)


@needs_bwrap
def test_files_go_in_and_come_out() -> None:
    table = ToolFile("in.csv", b"a,b\n1,2\n", "text/csv")
    result = run("text = open('in.csv').read(); open('out.json', 'w').write('{}'); print(text)", table)
    assert "1,2" in str(result.content)
    assert result.files == (ToolFile("out.json", b"{}", "application/json"),)
    changed = run("open('in.csv', 'a').write('3,4\\n')", table)
    assert changed.files == (ToolFile("in.csv", b"a,b\n1,2\n3,4\n", "text/csv"),)


@needs_bwrap
def test_runs_beside_each_other_do_not_meet() -> None:
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda n: run(f"open('me', 'w').write('{n}'); print(open('me').read())"), range(8))
        assert [str(result.content).split()[2] for result in results] == [str(n) for n in range(8)]


@needs_bwrap
def test_the_group_is_the_one_it_serves() -> None:
    assert [tool.name for tool in interpreter().list_tools(CONTEXT, GROUP, None)] == ["code_interpreter"]
    with pytest.raises(BadRequest, match="serves the tool group"):
        interpreter().list_tools(CONTEXT, "other", None)
    with pytest.raises(BadRequest, match="serves the tool group"):
        interpreter().list_tools(CONTEXT, GROUP, URL(uri="http://x"))


def test_where_no_sandbox_is_the_group_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(BadRequest, match="apt install bubblewrap"):
        interpreter(python=tmp_path / "python-a").list_tools(CONTEXT, GROUP, None)
    monkeypatch.undo()
    if shutil.which("bwrap") is not None:
        with pytest.raises(BadRequest, match="`python` of the provider"):
            interpreter(python=tmp_path / "python-b").list_tools(CONTEXT, GROUP, None)
