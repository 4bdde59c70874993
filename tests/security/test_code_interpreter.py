"""Fault 22: code of the code interpreter reaches nothing outside of its sandbox, and takes no more than its limits."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.sandbox.bubblewrap import MAX_INODES
from tests.backends.sandbox.conftest import Desk
from tests.sandboxes import needs_bubblewrap, sandboxes, until_there_is_a_sandbox
from tests.servers import PROFILES, ROOT, RunningServer, running

CANARY = "canary-5f3a9-do-not-tell"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("slots"), timeout_s=20, memory_mb=512, disk_mb=16)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose environment and data directory hold a secret."""
    data = tmp_path_factory.mktemp("server")
    (data / "secret.txt").write_text(CANARY)
    with running(data, profile=PROFILES / "code.yaml", environment={"SECRET_KEY": CANARY}) as started:
        yield started


def call(server: RunningServer, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """Status and body of a request."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}{path}", data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def invoke(server: RunningServer, code: str) -> Any:
    status, answer = call(
        server, "/v1/tool-runtime/invoke", {"tool_name": "code_interpreter", "kwargs": {"code": code}}
    )
    assert status == 200, answer
    return answer


@needs_bubblewrap
def test_nothing_of_the_server_can_be_read(server: RunningServer) -> None:
    code = f"""
import os
print(os.environ)
for root, folders, files in os.walk("/"):
    for name in files:
        path = os.path.join(root, name)
        if not path.startswith(("/usr/lib", "/lib", "/python/lib", "/packages", "/dev", "/usr/share/zoneinfo")):
            print(path, open(path, errors="replace").read()[:100_000] if os.path.getsize(path) < 100_000 else "")
for path in ({str(server.data)!r}, {str(server.data / "secret.txt")!r}, {str(Path.home())!r}, {str(ROOT)!r},
             "/proc/self", "/proc/1/environ", "/sys", "/etc/shadow", "/var", "/home", "/run", "/root", "/bin"):
    print("there:", path, os.path.exists(path))
print(open("/etc/passwd").read())
"""
    answer = invoke(server, code)
    assert answer.get("error_message") is None, answer
    assert CANARY not in json.dumps(answer)
    assert "SECRET_KEY" not in answer["content"]
    assert [line for line in answer["content"].splitlines() if line.startswith("there:") and "True" in line] == []
    assert "root:" not in answer["content"]
    assert "user:x:1000" in answer["content"]


@needs_bubblewrap
def test_over_http_pictures_come_back_as_images_and_other_files_by_name(server: RunningServer) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\nopen('t.csv', 'w').write('a,b')"
    text, picture, table = invoke(server, code)["content"]
    assert text["type"] == "text"
    assert text["text"].startswith("completed\n")
    assert base64.b64decode(picture["image"]["data"]).startswith(b"\x89PNG")
    assert table == {"type": "text", "text": "<file t.csv, text/csv, 3 bytes>"}
    failed = invoke(server, "1/0")
    assert (failed["error_message"], failed["error_code"]) == ("ZeroDivisionError: division by zero", 1)


def test_without_a_sandbox_the_group_is_not_there_and_says_why(tmp_path: Path) -> None:
    with running(tmp_path, profile=PROFILES / "code.yaml", environment={"PATH": "/nowhere"}) as server:
        assert call(server, "/v1/toolgroups")[1]["data"] == []
        status, problem = call(
            server,
            "/v1/toolgroups",
            {"toolgroup_id": "builtin::code_interpreter", "provider_id": "code-interpreter"},
        )
        assert status == 400
        assert "apt-get install bubblewrap" in problem["error"]["message"]
        log = server.log.read_text()
    assert log.count("default tool group builtin::code_interpreter is not registered") == 1
    assert "bubblewrap is not installed" in log


@needs_bubblewrap
def test_there_is_no_network(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        code = f"""
import asyncio, socket
for kind in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_VSOCK, socket.AF_PACKET):
    for type in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            socket.socket(kind, type)
            print("made", kind, type)
        except OSError as error:
            assert error.errno == 1, error
for place in (("127.0.0.1", {listening.getsockname()[1]}), ("169.254.169.254", 80)):
    try:
        socket.create_connection(place, 1)
        print("connected")
    except OSError:
        pass
left, right = socket.socketpair()  # of its own, for asyncio
left.send(b"x"); assert right.recv(1) == b"x"
"""
        assert desk.printed(code) == ""


@needs_bubblewrap
def test_nothing_is_written_outside_of_its_own_small_file_system(desk: Desk) -> None:
    code = """
import os
for folder, folders, _ in os.walk("/"):
    if folder.startswith(("/tmp", "/dev/shm")):
        continue
    try:
        open(os.path.join(folder, "written"), "w")
        print("written", folder)
    except OSError:
        pass
    if folder.count("/") > 4:
        folders.clear()
for path in ("/etc/passwd", "/onnxstack/backends/sandbox/inside/runner.py", os.__file__):
    try:
        open(path, "a")
        print("opened", path)
    except OSError:
        pass
    try:
        os.rename(path, path + "x")
        print("moved", path)
    except OSError:
        pass
"""
    assert desk.printed(code) == ""


CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, *arguments):
    ctypes.set_errno(0)
    if libc.syscall(*arguments) != -1:
        print(name, "worked")
    elif ctypes.get_errno() not in (1, 38):
        print(name, os.strerror(ctypes.get_errno()))
"""
X86_64 = {
    "ptrace": (101, 16, 1, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "setuid": (105, 0),
    "setgid": (106, 0),
    "setresuid": (117, 0, 0, 0),
    "capset": (126, 0, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "umount": (166, 0, 0),
    "chroot": (161, 0),
    "unshare": (272, 0x10000000),
    "setns": (308, 0, 0),
    "fork": (57,),
    "vfork": (58,),
    "clone": (56, 17, 0, 0, 0, 0),
    "clone with a user namespace": (56, 0x10000011, 0, 0, 0, 0),
    "clone3": (435, 0, 0),
    "execve": (59, 0, 0, 0),
    "socket": (41, 1, 1, 0),
    "memfd_create": (319, 0, 0),
    "shmget": (29, 0, 4096, 0o1600),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "userfaultfd": (323, 0),
    "io_uring_setup": (425, 1, 0),
    "keyctl": (250, 0, 0),
    "open_by_handle_at": (304, 0, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "init_module": (175, 0, 0, 0),
    "reboot": (169, 0, 0, 0, 0),
    "pidfd_open": (434, 1, 0),
    "kill the first process": (62, 1, 9),
    "kill the runner": (62, 2, 9),
    "kill all": (62, -1, 9),
    "tgkill the runner": (234, 2, 2, 9),
    "of the x32 table": (0x40000000 + 39,),
    "of the future": (470, 0),
}


@needs_bubblewrap
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls are of x86_64")
def test_the_kernel_is_kept_away(desk: Desk) -> None:
    code = CALLS + "\n".join(f"attempt({name!r}, {', '.join(map(str, call))})" for name, call in X86_64.items())
    assert desk.printed(code) == ""


@needs_bubblewrap
def test_it_is_an_ordinary_user_without_capabilities(desk: Desk) -> None:
    code = """
import ctypes, os
print(os.getuid(), os.getgid(), os.getgroups(), os.geteuid())
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
ctypes.CDLL(None).capget(header, data)
print(list(data))
print(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0), [ctypes.CDLL(None).prctl(23, n, 0, 0, 0) for n in range(41)].count(1))
"""
    user, capabilities, privileges = desk.printed(code).splitlines()
    assert user.startswith("1000 1000 ")
    assert capabilities == "[0, 0, 0, 0, 0, 0]"
    assert privileges == "1 0"  # no new privileges, and no capability that it could ever get


def processes() -> int:
    return sum(path.name.isdigit() for path in Path("/proc").iterdir())


@needs_bubblewrap
@pytest.mark.parametrize(
    "bomb",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess\nwhile True: subprocess.Popen(['/python/bin/python3'])",
        "import multiprocessing\nwhile True: multiprocessing.Process(target=print).start()",
        "import os\nwhile True:\n    try: os.fork()\n"
        "    except OSError: os.posix_spawn('/python/bin/python3', ['x'], {})",
    ],
)
def test_a_fork_bomb_makes_no_process(desk: Desk, bomb: str) -> None:
    assert "Operation not permitted" in str(desk.run(bomb).error_message)


@needs_bubblewrap
def test_threads_are_bounded(desk: Desk) -> None:
    code = """
import threading, time
made = 0
try:
    while made < 50_000:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        made += 1
except (RuntimeError, MemoryError):
    pass
import os
os.write(1, str(made).encode())
os._exit(0)
"""
    assert int(desk.printed(code)) < 1000


@needs_bubblewrap
@pytest.mark.parametrize(
    "greedy",
    [
        "bytearray(10_000_000_000)",
        "x = []\nwhile True: x.append(bytearray(1_000_000))",
        "import mmap\nmaps = []\nwhile True: maps.append(mmap.mmap(-1, 100_000_000))",
        "import numpy as np\nnp.ones(2_000_000_000)",
    ],
)
def test_memory_is_bounded(desk: Desk, greedy: str) -> None:
    message = str(desk.run(greedy).error_message)
    assert "MemoryError" in message or "Unable to allocate" in message or "Cannot allocate memory" in message


@needs_bubblewrap
@pytest.mark.parametrize(
    ("greedy", "told"),
    [
        ("f = open('big', 'wb')\nwhile True: f.write(bytes(1_000_000))", "File too large"),
        ("n = 0\nwhile True:\n    open(str(n), 'wb').write(bytes(1_000_000)); n += 1", "No space left on device"),
        ("n = 0\nwhile True:\n    open(f'/dev/shm/{n}', 'wb').write(bytes(1_000_000)); n += 1", "No space left"),
        ("n = 0\nwhile True:\n    open(str(n), 'w').close(); n += 1", f"more than {MAX_INODES} files"),
        ("import os\nwhile True:\n    os.mkdir('d'); os.chdir('d')", f"more than {MAX_INODES} files"),
    ],
)
def test_room_is_bounded_and_no_disk_of_the_host(desk: Desk, greedy: str, told: str) -> None:
    assert told in str(desk.run(greedy).error_message)


@needs_bubblewrap
@pytest.mark.parametrize(
    "endless",
    [
        "while True: pass",
        "while True: print('x' * 10_000)",
        "import sys\nwhile True: sys.stderr.write('x' * 10_000)",
        "import time\ntime.sleep(1000)",
        "import os\nos.close(1); os.close(2)\nwhile True: pass",
        "import signal\nfor n in range(1, 32):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except OSError: pass\nwhile True: pass",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        "import threading\nthreading.Thread(target=threading.Event().wait).start()",
        "import atexit\n@atexit.register\ndef late():\n    while True: pass",
    ],
)
def test_what_never_ends_is_ended(tmp_path: Path, endless: str) -> None:
    begun = time.monotonic()
    result = Desk(tmp_path, timeout_s=1, max_output_kb=16).run(endless)
    assert result.error_message == "the code took longer than 1 s and was stopped"
    assert len(str(result.content)) < 40_000
    assert time.monotonic() - begun < 10


@needs_bubblewrap
def test_nothing_stays_from_one_call_to_the_next(desk: Desk) -> None:
    desk.printed("for p in ('left', '/tmp/left', '/dev/shm/left'): open(p, 'w').write('x')")
    assert (
        desk.printed("import os; print(os.listdir(), os.listdir('/tmp'), os.listdir('/dev/shm'))") == "[] ['work'] []"
    )


@needs_bubblewrap
def test_calls_beside_each_other_do_not_see_each_other(tmp_path: Path) -> None:
    desk = Desk(tmp_path, timeout_s=2)
    waiting = threading.Thread(
        target=desk.run, args=("open('/tmp/mine', 'w').write('x')\nimport time; time.sleep(60)",)
    )
    waiting.start()
    try:
        for _ in range(3):
            assert desk.printed("import os; os.listdir('/tmp')") == "['work']"
    finally:
        waiting.join()


@needs_bubblewrap
def test_the_packages_of_the_server_are_not_there_but_those_named(desk: Desk) -> None:
    code = """
import importlib, sys
for name in ("sqlalchemy", "lancedb", "connexion", "backends.store", "pip", "setuptools"):
    try:
        importlib.import_module(name)
        print(name)
    except ImportError:
        pass
"""
    assert desk.printed(code) == ""


@needs_bubblewrap
def test_a_worker_that_is_killed_leaves_no_code_running(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from tests.backends.sandbox.conftest import Desk
Desk(Path({str(tmp_path)!r}), disk_mb=63).run("import time; time.sleep(1000)")
"""

    worker = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    try:
        until_there_is_a_sandbox(63)
        deadline = time.monotonic() + 20
        while len(sandboxes(63)) < 2 and time.monotonic() < deadline:  # bubblewrap and its first process inside
            os.sched_yield()
    finally:
        worker.kill()
        worker.wait()
    while sandboxes(63) and time.monotonic() < deadline:
        os.sched_yield()
    assert sandboxes(63) == []
