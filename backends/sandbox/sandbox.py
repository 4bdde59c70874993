"""Runs code under bubblewrap (https://github.com/containers/bubblewrap): namespaces of its own for everything.

No network, a clean environment, a root of tmpfs with only the Python and its libraries bound read-only, a working
directory on tmpfs with a fixed size, no user but `nobody`, no capability, and limits on CPU, memory, processes and
file sizes. It dies with the process that started it. System calls are not filtered: bubblewrap takes a filter only as
compiled bytes.
"""

from __future__ import annotations

import base64
import json
import mimetypes
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from backends.context import CallContext
from backends.errors import Unsupported
from backends.ports import ToolFile
from backends.sandbox.settings import SandboxSettings

HERE = Path(__file__).parent
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/alternatives")
WORK = "/work"
_PACK = """
import base64, json, os, sys
limit, most = int(sys.argv[1]), int(sys.argv[2])
files = []
for name in sorted(os.listdir(".")):
    if len(files) < most and os.path.isfile(name) and not os.path.islink(name) and os.path.getsize(name) <= limit:
        limit -= os.path.getsize(name)
        with open(name, "rb") as file:
            files.append([name, base64.b64encode(file.read()).decode(), os.stat(name).st_mtime_ns])
with open(int(sys.argv[3]), "w") as result:
    json.dump(files, result)
"""
_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """What a run did. code: exit code, negative for a signal. ended: why it was ended from outside, "" if not."""

    stdout: str
    stderr: str
    code: int
    ended: str
    files: tuple[ToolFile, ...]


class Sandbox:
    """Runs code. Many threads may use one."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._room = threading.Semaphore(settings.at_once)

    def check(self) -> None:
        """Return if code can be run here. Raises Unsupported: why not, and what to do about it."""
        reason = _unavailable(str(self._python()))
        if reason:
            raise Unsupported(f"the code interpreter cannot run here: {reason}")

    def run(self, context: CallContext, code: str, files: Sequence[ToolFile]) -> Run:
        """Run the code with the files in its working directory. Raises Unsupported, Cancelled, DeadlineExceeded."""
        self.check()
        while not self._room.acquire(timeout=0.1):
            context.check()
        try:
            return self._run(context, code, files)
        finally:
            self._room.release()

    def _run(self, context: CallContext, code: str, files: Sequence[ToolFile]) -> Run:
        settings = self._settings
        limit = settings.seconds
        if context.deadline is not None:
            limit = max(0.1, min(limit, context.deadline - time.time()))
        with _Directory() as directory:
            inside, given = directory / "sandbox", directory / "given"
            for each in (inside, given):
                each.mkdir()
            (inside / "code.py").write_text(code, "utf-8", "surrogatepass")
            (inside / "runner.py").write_bytes((HERE / "runner.py").read_bytes())
            (inside / "sandbox_backend.py").write_bytes((HERE / "figures.py").read_bytes())
            (inside / "pack.py").write_text(_PACK)
            for file in files:
                (given / Path(file.name).name).write_bytes(file.data)
            numbers = [
                settings.cpu_seconds, settings.memory_mb * _MEGABYTE, settings.processes, settings.disk_mb * _MEGABYTE,
            ]  # fmt: skip
            reading, writing = os.pipe()
            run = f"/sandbox/runner.py {' '.join(map(str, numbers))} {writing}"
            pack = f"/sandbox/pack.py {settings.disk_mb * _MEGABYTE} {settings.files + len(files)} {writing}"
            shell = f'cp /given/* . 2>/dev/null; "$0" {run}; code=$?; "$0" {pack}; exit $code'
            python = self._python()
            command = [
                *_wrapped(python, settings.disk_mb * _MEGABYTE),
                "--ro-bind", str(inside), "/sandbox", "--ro-bind", str(given), "/given", "--remount-ro", "/",
                "--", "/bin/sh", "-c", shell, str(python),
            ]  # fmt: skip
            before = {file.name: file.data for file in files}
            packed = 2 * settings.disk_mb * _MEGABYTE
            ended = _watched(context, command, limit, settings.output_chars, (reading, writing), packed)
            return Run(ended.stdout, ended.stderr, ended.code, ended.why, _made(ended.packed, before, settings.files))

    def _python(self) -> Path:
        if self._settings.python is not None:
            return self._settings.python.expanduser().absolute()
        return Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def _wrapped(python: Path, disk: int) -> list[str]:
    """bubblewrap's options but those of one run."""
    prefixes = _prefixes(str(python))
    bound = [*LIBRARIES, "/bin", "/usr/bin", *prefixes]
    options = ["bwrap", "--unshare-all", "--clearenv", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    options += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    for path in dict.fromkeys(bound):
        if Path(path).is_symlink() and path in ("/lib", "/lib64", "/bin"):
            options += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).exists():
            options += ["--ro-bind", path, path]
    options += ["--proc", "/proc", "--dev", "/dev", "--size", str(disk), "--tmpfs", "/tmp"]  # noqa: S108
    options += ["--size", str(disk), "--tmpfs", WORK, "--chdir", WORK]
    options += ["--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", WORK, "--setenv", "LANG", "C.UTF-8"]
    return [*options, "--setenv", "PYTHONDONTWRITEBYTECODE", "1", "--setenv", "OPENBLAS_NUM_THREADS", "1"]


@cache
def _prefixes(python: str) -> tuple[str, ...]:
    """The directories that a Python lives in."""
    ask = "import sys, json; print(json.dumps([sys.prefix, sys.base_prefix]))"
    try:
        done = subprocess.run([python, "-I", "-c", ask], capture_output=True, timeout=20, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(prefix for prefix in dict.fromkeys(json.loads(done.stdout)) if prefix not in ("/", "/usr"))


@cache
def _unavailable(python: str) -> str:
    """Why no code can be run here; "" where it can."""
    if not sys.platform.startswith("linux"):
        return "bubblewrap is for Linux"
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed; on Debian: apt install bubblewrap"
    if not Path(python).exists():
        return "its Python is not there; set `python` of the provider"
    command = [*_wrapped(Path(python), _MEGABYTE), "--", python, "-c", "print(1)"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "bubblewrap does not start"
    if done.returncode == 0:
        return ""
    said = done.stderr.decode("utf-8", "replace").strip()[:200]
    return f"bubblewrap fails ({said}); in a container it needs unprivileged user namespaces"


@dataclass(frozen=True, slots=True)
class _Ended:
    stdout: str
    stderr: str
    code: int
    why: str
    packed: bytes


def _watched(
    context: CallContext, command: list[str], seconds: float, most: int, pipe: tuple[int, int], packed: int
) -> _Ended:
    """Run to the end, or to the limit. Raises Cancelled: the caller has gone, and so has the process."""
    reading, writing = pipe
    try:
        process = subprocess.Popen(  # noqa: S603 - arguments of ours; the code is in a file
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.defpath},
            pass_fds=(writing,),
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    context.cancellation.on_cancel(process.kill)
    files = _Reader(os.fdopen(reading, "rb"), packed)
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    outputs = [_Reader(stream, most) for stream in (process.stdout, process.stderr)]
    ended = ""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        ended = f"it ran longer than {seconds:g} seconds"
        process.kill()
        process.wait()
    texts = [output.text() for output in outputs]
    context.check()
    return _Ended(texts[0], texts[1], process.returncode, ended, files.data())


class _Reader:
    """Reads a pipe to its end and keeps the first characters, so that endless output costs no memory."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream = stream
        self._most = most
        self._kept = bytearray()
        self._cut = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def data(self) -> bytes:
        """What was kept, when the pipe is at its end."""
        self._thread.join(5)
        return bytes(self._kept)

    def text(self) -> str:
        """The same as text, which says so where it was cut."""
        text = self.data().decode("utf-8", "replace")
        return text + ("\n... and more, which is cut" if self._cut else "")

    def _read(self) -> None:
        with self._stream as stream:
            while chunk := os.read(stream.fileno(), 65536):
                room = self._most - len(self._kept)
                self._kept += chunk[:room]
                self._cut = self._cut or len(chunk) > room


class _Directory:
    """A directory of this user alone for one run."""

    def __enter__(self) -> Path:
        import tempfile

        self._path = Path(tempfile.mkdtemp(prefix="onnxstack-run-"))
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


def _made(packed: bytes, before: dict[str, bytes], most: int) -> tuple[ToolFile, ...]:
    """The files that the run made or changed."""
    try:
        found = [(str(name), base64.b64decode(data)) for name, data, _ in json.loads(packed)]
    except (ValueError, TypeError):  # it was ended, or there were too many bytes
        return ()
    made = [(name, data) for name, data in found if before.get(name) != data]
    return tuple(
        ToolFile(Path(name).name, data, mimetypes.guess_type(name)[0] or "application/octet-stream")
        for name, data in made[:most]
    )
