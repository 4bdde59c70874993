"""Runs code in bubblewrap (https://github.com/containers/bubblewrap): namespaces of its own, nothing to see but Python.

No network, no /proc, no /sys, no environment; a root of nothing but the interpreter, the system's shared libraries and
the packages that the settings name, all read-only; one small file system in memory to write to.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.context import CallContext
from backends.errors import Unavailable, Unsupported
from backends.ports import ToolFile
from backends.sandbox import inside
from backends.sandbox.inside import protocol
from backends.sandbox.inside.seccomp import MACHINES
from backends.sandbox.interpreter import Interpreter, files_of, find_interpreter
from backends.sandbox.settings import CodeInterpreterSettings

INSTALL = "install bubblewrap 0.8 or newer: `apt-get install bubblewrap`, `dnf install bubblewrap`"
GRACE_S = 10.0
"""Seconds beside those of the code: to start, and to hand over files."""
MAX_INODES = 10_000
"""Files and folders in the sandbox's file system."""
_INSIDE = Path(inside.__file__).parent
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")
_DISTRIBUTION_PACKAGES = "/usr/lib/python3/dist-packages"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108 - a file system of the sandbox alone
    "LANG": "C.UTF-8",
    "LD_LIBRARY_PATH": "/python/lib",
    "MPLBACKEND": "module://backends.sandbox.inside.figures",
    "MPLCONFIGDIR": "/tmp/.matplotlib",  # noqa: S108
    # A thread for each core of the machine costs more address space than it saves time.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": "/python/bin",
    "TZ": "UTC",
    "USER": "user",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How code ended. cause: "timeout" or "files" if it was killed for that; code: its exit code, -n for signal n.

    left_out: how many files beyond the limits there were.
    """

    cause: str
    code: int
    stdout: str
    stderr: str
    files: tuple[tuple[str, bytes], ...]
    left_out: int


class Bubblewrap:
    """Sandboxes by these settings. Many threads may use one."""

    def __init__(self, settings: CodeInterpreterSettings) -> None:
        self._settings = settings
        self._command: list[str] | None = None
        self._lock = threading.Lock()

    def check(self) -> None:
        """Return if code can be run; the first time it is tried.

        Raises:
            Unsupported: why not, and what to do.
        """
        self._ready()

    def run(self, context: CallContext, code: str, files: Sequence[ToolFile]) -> Outcome:
        """Run code among the files, within the limits of the settings and of the call.

        Raises:
            Unsupported: this machine has no sandbox. Cancelled, DeadlineExceeded. Unavailable: the sandbox failed.
        """
        given = [(file.name, file.data) for file in files]
        return _run(self._ready(), context, self._task(code), given, self._settings.timeout_s + GRACE_S)

    def _ready(self) -> list[str]:
        with self._lock:
            if self._command is None:
                command = self._made_command()
                try:
                    outcome = _run(command, CallContext(request_id="start"), self._task("print(6 * 7)"), (), GRACE_S)
                except Unavailable as error:
                    raise _unsafe(
                        "bubblewrap cannot make its namespaces; docs/code-interpreter.md has what the host must allow",
                        error.internal,
                    ) from error
                if outcome.stdout != "42\n":
                    raise _unsafe("a trial of the sandbox failed", f"exit {outcome.code}: {outcome.stderr[-500:]}")
                self._command = command
            return self._command

    def _task(self, code: str) -> dict[str, Any]:
        settings = self._settings
        limits = {
            "RLIMIT_AS": settings.memory_mb << 20,
            "RLIMIT_CPU": math.ceil(settings.timeout_s) + 1,
            "RLIMIT_FSIZE": settings.disk_mb << 20,
            "RLIMIT_NOFILE": 256,
            "RLIMIT_NPROC": settings.max_threads,
            "RLIMIT_CORE": 0,
            "RLIMIT_MEMLOCK": 0,
        }
        return {
            "code": code,
            "limits": limits,
            "timeout_s": settings.timeout_s,
            "max_output": settings.max_output_kb << 10,
            "max_files": settings.max_files,
            "max_bytes": settings.max_files_mb << 20,
            "max_inodes": MAX_INODES,
        }

    def _made_command(self) -> list[str]:
        if not sys.platform.startswith("linux"):
            raise _unsafe("it needs Linux")
        if platform.machine() not in MACHINES:
            raise _unsafe(f"its filter of system calls knows {' and '.join(MACHINES)}, not {platform.machine()}")
        program = shutil.which("bwrap")
        if program is None:
            raise _unsafe(f"bubblewrap is not installed; {INSTALL}")
        try:
            interpreter = find_interpreter(self._settings.python)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise _unsafe("the Python of the option `python` does not run", str(error)) from error
        packages = [] if self._settings.python else files_of(self._settings.packages)[0]
        return [program, *_arguments(interpreter, packages, self._settings.disk_mb)]


def _unsafe(reason: str, internal: str = "") -> Unsupported:
    return Unsupported(f"code cannot be run safely on this machine: {reason}", internal=internal)


def _arguments(interpreter: Interpreter, packages: Sequence[Path], disk_mb: int) -> list[str]:
    arguments = ["--unshare-user", "--unshare-all", "--disable-userns", "--die-with-parent", "--new-session"]
    arguments += ["--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--hostname", "sandbox", "--clearenv"]
    for name, value in _ENVIRONMENT.items():
        arguments += ["--setenv", name, value]
    for library in _LIBRARIES:
        path = Path(library)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), library]
        elif path.is_dir():
            arguments += ["--ro-bind", library, library]
    if Path(_DISTRIBUTION_PACKAGES).is_dir() and Path(_DISTRIBUTION_PACKAGES) not in interpreter.packages:
        arguments += ["--tmpfs", _DISTRIBUTION_PACKAGES, "--remount-ro", _DISTRIBUTION_PACKAGES]
    for source, place in interpreter.binds():
        arguments += ["--ro-bind", source, place]
    for place in interpreter.hidden():
        arguments += ["--tmpfs", place, "--remount-ro", place]
    for path in packages:
        arguments += ["--ro-bind", str(path), f"/packages/{path.name}"]
    for number, path in enumerate(interpreter.packages):
        arguments += ["--ro-bind", str(path), f"/packages-{number}"]
    for optional in ("/etc/ld.so.cache", "/usr/share/zoneinfo"):
        arguments += ["--ro-bind-try", optional, optional]
    arguments += ["--ro-bind", str(_INSIDE / "passwd"), "/etc/passwd"]
    arguments += ["--ro-bind", str(_INSIDE), "/onnxstack/backends/sandbox/inside"]
    for device in _DEVICES:
        arguments += ["--dev-bind", device, device]
    arguments += ["--size", str(16 << 20), "--perms", "0700", "--tmpfs", "/dev/shm"]  # noqa: S108
    arguments += ["--size", str(disk_mb << 20), "--perms", "0700", "--tmpfs", "/tmp", "--chdir", "/tmp"]  # noqa: S108
    arguments += ["--remount-ro", "/", "--", interpreter.program, "-I", "-S"]
    paths = ":".join(["/packages", *(f"/packages-{number}" for number in range(len(interpreter.packages)))])
    return [*arguments, "/onnxstack/backends/sandbox/inside/runner.py", paths]


def _run(
    command: Sequence[str],
    context: CallContext,
    task: dict[str, Any],
    files: Sequence[tuple[str, bytes]],
    timeout_s: float,
) -> Outcome:
    message = io.BytesIO()
    protocol.write(message, task, files)
    # Three things end a sandbox, since bwrap's --die-with-parent misses a parent that is killed while it starts: its
    # process group is killed, in which bwrap's own child waits for its parent for ever, and the runner ends when this
    # pipe does.
    watched, held = os.pipe()
    with open(held, "wb", buffering=0) as lifeline:  # noqa: PTH123 - a descriptor
        try:
            process = subprocess.Popen(  # noqa: S603
                [*command, str(watched)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": os.defpath},
                pass_fds=(watched,),
                start_new_session=True,
            )
        finally:
            os.close(watched)

        def stop() -> None:
            lifeline.close()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

        with process:
            context.cancellation.on_cancel(stop)
            left_s = math.inf if context.deadline is None else max(0.0, context.deadline - time.time())
            try:
                output, said = process.communicate(message.getvalue(), timeout=min(timeout_s, left_s))
            except subprocess.TimeoutExpired:
                stop()
                process.communicate()
                context.check()
                return Outcome("timeout", 0, "", "", (), 0)
    context.check()
    try:
        header, made = protocol.read(io.BytesIO(output))
        return Outcome(
            str(header["cause"]),
            int(header["code"]),
            str(header["stdout"]),
            str(header["stderr"]),
            tuple(made),
            int(header["left_out"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        last = said.decode("utf-8", "replace").strip()[-500:]
        raise Unavailable("the sandbox failed", retry_after_s=None, internal=f"{process.returncode}: {last}") from error
