"""Fault 22: code in the sandbox reaches nothing outside of it, and takes no more than its limits."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from backends.context import CallContext
from backends.errors import Cancelled
from backends.ports import ToolFile
from backends.sandbox.sandbox import Run, Sandbox
from backends.sandbox.settings import SandboxSettings

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
CANARY = "canary-5f3a9"


def run(code: str, *files: ToolFile, context: CallContext | None = None, **limits: object) -> Run:
    settings = SandboxSettings.model_validate({"seconds": 20, **limits})
    return Sandbox(settings).run(context or CallContext(request_id="test"), code, files)


def test_the_environment_and_the_files_of_the_host_are_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET", CANARY)
    (tmp_path / "state.db").write_text(CANARY)
    code = f"""
import os
outside = ("/etc/passwd", "/etc/shadow", "/proc/1/environ", {str(tmp_path / "state.db")!r}, "/root/.bashrc", "/var/log")
for number, path in enumerate(outside):
    try:
        print(number, open(path).read()[:2000])
    except OSError as error:
        print(number, type(error).__name__)
print(sorted(os.environ))
print(os.listdir("/tmp"), os.listdir("/home") if os.path.exists("/home") else "no home")
for pid in os.listdir("/proc"):
    if pid.isdigit():
        print(open(f"/proc/{{pid}}/cmdline").read()[:300], open(f"/proc/{{pid}}/environ").read()[:300])
"""
    done = run(code)
    assert done.code == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert "SECRET" not in done.stdout
    assert "pytest" not in done.stdout
    assert "no home" in done.stdout


def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = run(
            f"""
import socket
for place in (("127.0.0.1", {port}), ("93.184.215.14", 80), ("169.254.169.254", 80)):
    try:
        socket.create_connection(place, 2)
        print("connected")
    except OSError as error:
        print("refused")
"""
        )
    assert done.stdout.split() == ["refused"] * 3


def test_nothing_outside_the_working_directory_is_written() -> None:
    done = run(
        """
import os, sys
for place in ("/usr/x", "/lib/x", "/bin/x", "/sandbox/x", "/given/x", sys.prefix + "/x"):
    try:
        open(place, "w")
        print("written", place)
    except OSError:
        print("refused")
"""
    )
    assert set(done.stdout.split()) == {"refused"}


def test_it_is_nobody_and_stays_so() -> None:
    done = run(
        f"""
import ctypes, os
print(os.getuid())
for call in (lambda: os.setuid(0), lambda: os.mount, lambda: os.chroot("/")):
    try:
        call()
        print("done")
    except (OSError, AttributeError):
        print("refused")
print([line for line in open("/proc/self/status") if line.startswith("CapEff")][0].split()[1])
libc = ctypes.CDLL(None, use_errno=True)
print(libc.ptrace(16, {os.getpid()}, 0, 0))
print(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
"""
    )
    assert done.stdout.split() == ["65534", "refused", "refused", "refused", "0000000000000000", "-1", "-1"], (
        done.stderr
    )


def test_an_endless_loop_ends() -> None:
    started = time.monotonic()
    done = run("while True: pass", seconds=1)
    assert "longer than 1 seconds" in done.ended
    assert time.monotonic() - started < 15
    assert run("while True: pass", cpu_seconds=1).code != 0


def test_a_fork_bomb_stays_inside() -> None:
    before = sum(1 for _ in Path("/proc").iterdir())
    done = run("import os\nwhile True: os.fork()", seconds=3, processes=20)
    assert done.ended or done.code
    assert sum(1 for _ in Path("/proc").iterdir()) < before + 40
    assert run("print(1)").stdout == "1\n"


def test_memory_disk_and_output_have_limits() -> None:
    assert "MemoryError" in run("x = bytearray(10_000_000_000)").stderr
    full = run(
        """
try:
    for i in range(100):
        with open(f"f{i}", "wb") as f:
            f.write(b"x" * 1_000_000)
except OSError as error:
    print("full", error.errno)
""",
        disk_mb=5,
    )
    assert full.stdout.startswith("full")
    loud = run("while True: print('x' * 1000)", seconds=2, output_chars=5000)
    assert len(loud.stdout) < 5100
    assert "cut" in loud.stdout


def test_a_run_whose_caller_has_gone_is_ended_at_once() -> None:
    context = CallContext(request_id="test")
    timer = threading.Timer(0.5, context.cancellation.cancel)
    timer.start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        run("import time; time.sleep(60)", context=context, seconds=60)
    assert time.monotonic() - started < 15
    timer.join()


def test_a_file_of_one_run_is_not_in_the_next() -> None:
    run("open('left.txt', 'w').write('x'); open('/tmp/left.txt', 'w').write('x')")
    assert run("import os; print(os.listdir('.'), os.listdir('/tmp'))").stdout == "[] []\n"
