"""The code interpreter as a tool: what a model gets back."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backends.context import CallContext
from backends.errors import BadRequest, Cancelled, DeadlineExceeded, Overloaded, PayloadTooLarge, Unsupported
from backends.ports import Resource, ToolFile, ToolResult
from backends.sandbox.runtime import GROUP, TOOL
from generated.models import URL
from tests.backends.sandbox.conftest import Desk
from tests.sandboxes import needs_bubblewrap, sandboxes, until_there_is_a_sandbox

pytestmark = needs_bubblewrap
FOREVER = "while True: pass"


def test_the_group_has_one_tool_that_says_what_can_be_imported(desk: Desk, context: CallContext) -> None:
    (tool,) = desk.runtime.list_tools(context, GROUP, None)
    assert tool.name == "code_interpreter"
    assert [(p.name, p.parameter_type, p.required) for p in tool.parameters or ()] == [("code", "string", True)]
    for package in ("numpy", "pandas", "matplotlib"):
        assert package in (tool.description or "")


@pytest.mark.parametrize(("group", "endpoint"), [("builtin::other", None), (GROUP, URL(uri="http://x/sse"))])
def test_other_groups_and_endpoints_are_not_known(
    desk: Desk, context: CallContext, group: str, endpoint: URL | None
) -> None:
    with pytest.raises(BadRequest, match=GROUP):
        desk.runtime.list_tools(context, group, endpoint)


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("print(6 * 7)", "completed\n[stdout]\n42\n[/stdout]"),
        ("6 * 7", "completed\n[stdout]\n42\n[/stdout]"),
        ("```python\nprint(6 * 7)\n```", "completed\n[stdout]\n42\n[/stdout]"),
        ("x = 1", "completed"),
        ("", "completed"),
        ("None", "completed"),
        (
            "import sys\nprint('a'); print('b', file=sys.stderr)",
            "completed\n[stdout]\na\n[/stdout]\n[stderr]\nb\n[/stderr]",
        ),
        ("exit()", "completed"),
        ("def f(n): return 1 if n < 2 else n * f(n - 1)\nf(5)", "completed\n[stdout]\n120\n[/stdout]"),
        ("print('\\u00fc')\nif __name__ == '__main__': print('main')", "completed\n[stdout]\n\u00fc\nmain\n[/stdout]"),
    ],
)
def test_the_answer_has_the_form_that_clients_know(desk: Desk, code: str, content: str) -> None:
    assert desk.run(code) == ToolResult(content)


@pytest.mark.parametrize(
    ("code", "message", "told"),
    [
        (
            "a = 1\nb = a / 0",
            "ZeroDivisionError: division by zero",
            'File "code.py", line 2, in <module>\n    b = a / 0',
        ),
        ("def f(:", "SyntaxError: invalid syntax", 'File "code.py", line 1'),
        ("import torch", "ModuleNotFoundError: No module named 'torch'", "Traceback"),
        ("exit(3)", "the code ended with exit code 3", ""),
        ("exit('wrong')", "wrong", "wrong"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the code was stopped by SIGSEGV", "SIGSEGV"),
        ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded", "Previous line repeated"),
        ("input()", "EOFError: EOF when reading a line", "input()"),
    ],
)
def test_an_error_can_be_read_by_a_model(desk: Desk, code: str, message: str, told: str) -> None:
    result = desk.run(code)
    assert (result.error_message, result.error_code) == (message, 1)
    assert str(result.content).startswith("error\n[stderr]\n")
    assert told in str(result.content)
    assert "/onnxstack" not in str(result.content)


def test_what_was_printed_before_the_time_was_up_is_there(tmp_path: Path) -> None:
    result = Desk(tmp_path, timeout_s=0.5).run(f"print('so far')\n{FOREVER}")
    assert result.error_message == "the code took longer than 0.5 s and was stopped"
    assert result.content == (
        "timeout\n[stdout]\nso far\n[/stdout]\n[stderr]\nthe code took longer than 0.5 s and was stopped\n[/stderr]"
    )


def test_packages_for_data_are_there(desk: Desk) -> None:
    assert desk.printed("import numpy as np\nnp.arange(5).sum().item()") == "10"
    table = ToolFile("table.csv", b"city,people\nA,3\nB,4\n", "text/csv")
    assert desk.printed("import pandas as pd\nprint(pd.read_csv('table.csv').people.sum())", table) == "7"


def test_shown_figures_come_back_as_pictures(desk: Desk) -> None:
    result = desk.run(
        "import matplotlib.pyplot as plt\n"
        "for n in (1, 2):\n    plt.figure(); plt.plot([1, n])\nplt.show()\nplt.plot([3]); plt.show()\nplt.show()"
    )
    assert result.error_message is None, result.content
    assert [(f.name, f.mime_type) for f in result.files] == [(f"figure-{n}.png", "image/png") for n in (1, 2, 3)]
    assert all(f.data.startswith(b"\x89PNG\r\n\x1a\n") for f in result.files)


def test_files_go_in_and_those_that_are_new_or_changed_come_out(desk: Desk) -> None:
    code = """
from pathlib import Path
assert Path("kept.txt").read_text() == "kept"
Path("changed.txt").write_text("after!")
Path("made.json").write_text("{}")
Path("folder").mkdir(); Path("folder/deep.csv").write_text("a,b")
Path("noise").write_bytes(bytes(range(256)))
Path(".hidden").write_text("x"); Path("__pycache__").mkdir(); Path("__pycache__/x.pyc").write_text("x")
Path("link").symlink_to("/etc/passwd")
import helper
"""
    files = [
        ToolFile("kept.txt", b"kept", "text/plain"),
        ToolFile("changed.txt", b"before", "text/plain"),
        ToolFile("helper.py", b"VALUE = 1", "text/x-python"),
    ]
    result = desk.run(code, *files)
    assert result.error_message is None, result.content
    assert [(f.name, f.data[:6], f.mime_type) for f in result.files] == [
        ("changed.txt", b"after!", "text/plain"),
        ("made.json", b"{}", "application/json"),
        ("noise", bytes(range(6)), "application/octet-stream"),
        ("folder_deep.csv", b"a,b", "text/csv"),
    ]


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("../../escape.txt", "escape.txt"),
        ("/etc/passwd", "passwd"),
        ("..", "file_1"),
        ("a\\b\n.txt", "b_.txt"),
        ("", "file_1"),
    ],
)
def test_a_file_lies_in_the_working_directory_whatever_its_name(desk: Desk, name: str, inside: str) -> None:
    assert desk.printed("import os; os.listdir()", ToolFile(name, b"x", "text/plain")) == repr([inside])


def test_what_comes_back_has_limits(tmp_path: Path) -> None:
    desk = Desk(tmp_path, max_files=2, max_files_mb=1, max_output_kb=1, disk_mb=8)
    result = desk.run("for n in range(5): open(f'{n}.txt', 'w').write(str(n))\nprint('a' * 5000 + 'z')")
    assert [f.name for f in result.files] == ["0.txt", "1.txt"]
    content = str(result.content)
    assert "[3 more files were left out: at most 2 files of 1 MB together are returned]" in content
    assert "[... 3978 bytes left out ...]" in content
    assert content.count("a") < 1200
    assert "z\n[/stdout]" in content
    assert desk.run("open('big', 'wb').write(bytes(2_000_000))").files == ()
    with pytest.raises(PayloadTooLarge, match="more than 8 MB"):
        desk.run("1", ToolFile("x", bytes(9 << 20), "text/plain"))


@pytest.mark.parametrize(
    ("arguments", "where"), [({}, "/kwargs/code"), ({"code": 1}, "/kwargs/code"), ({"code": "1", "x": 1}, "/kwargs")]
)
def test_wrong_arguments_are_refused_by_name(
    desk: Desk, context: CallContext, arguments: dict[str, object], where: str
) -> None:
    tool, group = Resource("tool", TOOL, "p", TOOL), Resource("tool_group", GROUP, "p", GROUP)
    with pytest.raises(BadRequest, match="code") as error:
        desk.runtime.invoke(context, tool, group, arguments, ())
    assert error.value.where == where
    with pytest.raises(BadRequest, match="200000"):
        desk.run("#" * 200_001)


def test_cancelling_ends_the_code_at_once_and_leaves_no_process(tmp_path: Path) -> None:
    desk = Desk(tmp_path, disk_mb=61)
    desk.run("1")
    context = CallContext(request_id="r")

    def cancel() -> None:
        until_there_is_a_sandbox(61)
        context.cancellation.cancel()

    thread = threading.Thread(target=cancel)
    begun = time.monotonic()
    thread.start()
    with pytest.raises(Cancelled):
        desk.run(FOREVER, context=context)
    thread.join(10)
    assert time.monotonic() - begun < 10
    assert sandboxes(61) == []


def test_the_deadline_of_the_call_ends_the_code(desk: Desk) -> None:
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        desk.run(FOREVER, context=CallContext(request_id="r", deadline=time.time() + 0.5))
    assert time.monotonic() - begun < 5


def test_many_threads_run_code_at_once(desk: Desk) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(desk.printed, [f"print({n})" for n in range(8)])) == [str(n) for n in range(8)]


def test_a_call_waits_for_its_turn_as_long_as_it_may(tmp_path: Path) -> None:
    # Two runtimes on one directory are two workers of one server.
    busy, waiting = Desk(tmp_path, at_once=1, disk_mb=62), Desk(tmp_path, at_once=1, wait_s=0.2)
    waiting.runtime.list_tools(CallContext(request_id="r"), GROUP, None)
    context = CallContext(request_id="r")
    refused: list[BaseException] = []

    def occupy() -> None:
        try:
            busy.run(FOREVER, context=context)
        except Cancelled as error:
            refused.append(error)

    thread = threading.Thread(target=occupy)
    thread.start()
    try:
        until_there_is_a_sandbox(62)
        with pytest.raises(Overloaded, match="all 1 places"):
            waiting.run("1")
        with pytest.raises(DeadlineExceeded):
            waiting.run("1", context=CallContext(request_id="r", deadline=time.time() + 0.1))
    finally:
        context.cancellation.cancel()
        thread.join(10)
    assert len(refused) == 1
    assert waiting.printed("1") == "1"


def test_an_environment_of_its_own_can_be_given(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (site,) = environment.glob("lib/python3.*/site-packages")
    (site / "of_mine.py").write_text("ANSWER = 42")
    desk = Desk(tmp_path, python=str(environment / "bin" / "python"))
    assert desk.printed("import of_mine; of_mine.ANSWER") == "42"
    assert desk.run("import numpy").error_message == "ModuleNotFoundError: No module named 'numpy'"
    (tool,) = desk.runtime.list_tools(CallContext(request_id="r"), GROUP, None)
    assert "what its environment has" in (tool.description or "")


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        ({}, "/nowhere", "bubblewrap is not installed; install bubblewrap"),
        ({"python": "/nowhere/python"}, None, "the option `python` does not run"),
        ({"python": "/bin/false"}, None, "the option `python` does not run"),
    ],
)
def test_a_machine_without_a_sandbox_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], path: str | None, message: str
) -> None:
    if path:
        monkeypatch.setenv("PATH", path)
    desk = Desk(tmp_path, **options)
    with pytest.raises(Unsupported, match=message):
        desk.runtime.list_tools(CallContext(request_id="r"), GROUP, None)
    with pytest.raises(Unsupported, match=message):
        desk.run("1")


def test_a_host_that_forbids_namespaces_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    desk = Desk(tmp_path / "slots")
    with pytest.raises(Unsupported, match="cannot make its namespaces") as error:
        desk.runtime.list_tools(CallContext(request_id="r"), GROUP, None)
    assert "Permission denied" in error.value.internal
    monkeypatch.undo()  # a sandbox that comes later is found without a restart
    assert desk.printed("1") == "1"
