"""The program that bubblewrap starts: takes code and files on standard input, answers with output and new files.

    python -I -S /onnxstack/backends/sandbox/inside/runner.py PACKAGES LIFELINE <message >message

PACKAGES: directories, with colons between. LIFELINE: a pipe that ends when nobody waits for the answer any more.

The code runs in a process of its own, which is limited, filtered, and killed when its time is up. That one cannot make
processes, so when it has ended nothing of it is left.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import linecache
import os
import resource
import selectors
import signal
import sys
import time
import traceback
import types
from collections.abc import Iterator
from typing import Any

PACKAGES, LIFELINE = sys.argv[1], int(sys.argv[2])
sys.path += ["/onnxstack", *PACKAGES.split(":")]

from backends.sandbox.inside import protocol, seccomp  # noqa: E402

WORK = "/tmp/work"  # noqa: S108 - a file system of this sandbox alone
SCRIPT = "code.py"
"""What tracebacks call the code."""
MAX_DEPTH = 8
"""Folders within folders in which files are looked for."""
LOOK_S = 0.05
"""Seconds between looks at how many files there are."""


class Output:
    """The first and the last half of what a pipe said, up to `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        over = len(self._tail) - self._half
        if over > self._half:  # seldom, since it moves what is kept
            del self._tail[:over]
            self._dropped += over

    def text(self) -> str:
        over = max(0, len(self._tail) - self._half)
        dropped = self._dropped + over
        between = f"\n[... {dropped} bytes left out ...]\n".encode() if dropped else b""
        return bytes(self._head + between + self._tail[over:]).decode("utf-8", "replace")


def run_code(code: str) -> int:
    """Run the code as a main module, print the value of a last expression; the exit code."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = [SCRIPT]
    sys.path.insert(0, WORK)
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # without `site` there are none
    # What was printed is there when the code is killed.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    linecache.cache[SCRIPT] = (len(code), None, code.splitlines(keepends=True), SCRIPT)
    try:
        tree = ast.parse(code, SCRIPT)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body[-1].value)
            del tree.body[-1]
        exec(compile(tree, SCRIPT, "exec"), module.__dict__)  # noqa: S102 - what this is for
        if last is not None:
            value = eval(compile(last, SCRIPT, "eval"), module.__dict__)  # noqa: S307
            if value is not None:
                print(repr(value))
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException as error:
        frames = error.__traceback__.tb_next if error.__traceback__ else None  # without this function
        traceback.print_exception(type(error), error, None if isinstance(error, SyntaxError) else frames)
        return 1
    return 0


def become_the_code(task: dict[str, Any], out: int, err: int) -> int:
    """In the child: give up everything, then run the code."""
    nothing = os.open("/dev/null", os.O_RDONLY)
    for descriptor, place in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(descriptor, place)
    os.closerange(3, 1024)
    os.chdir(WORK)
    for name, value in task["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    seccomp.install()
    return run_code(task["code"])


def watch(child: int, out: int, err: int, task: dict[str, Any]) -> dict[str, Any]:
    """Wait for the child, no longer than it may take; what it said and how it ended."""
    ends = time.monotonic() + task["timeout_s"]
    outputs = {out: Output(task["max_output"]), err: Output(task["max_output"])}
    cause = ""
    code = 0
    with selectors.DefaultSelector() as selector:
        for pipe in (*outputs, LIFELINE):
            selector.register(pipe, selectors.EVENT_READ)
        running = True
        while running or len(selector.get_map()) > 1:
            for key, _ in selector.select(LOOK_S):
                if key.fd == LIFELINE:
                    os._exit(1)  # the first process of the namespace goes with this one, and with that one all
                data = os.read(key.fd, 65_536)
                outputs[key.fd].add(data)
                if not data:
                    selector.unregister(key.fd)
            if running:
                ended, code = os.waitpid(child, os.WNOHANG)
                running = not ended
            if running and not cause:
                cause = "timeout" if time.monotonic() > ends else "files" if too_many_files(task) else ""
                if cause:
                    os.kill(child, signal.SIGKILL)
    stdout, stderr = (outputs[pipe].text() for pipe in (out, err))
    return {"cause": cause, "code": os.waitstatus_to_exitcode(code), "stdout": stdout, "stderr": stderr}


def too_many_files(task: dict[str, Any]) -> bool:
    """Whether the file system has more files than it may; they cost memory that no other limit counts."""
    usage = os.statvfs("/tmp")  # noqa: S108
    return usage.f_files - usage.f_ffree > int(task["max_inodes"])


def made_files() -> Iterator[tuple[str, int]]:
    """Paths and sizes of the regular files in the working directory, without hidden ones and very deep ones."""
    folders = [(WORK, 0)]
    while folders:
        folder, depth = folders.pop()
        try:
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith((".", "__pycache__")):
                continue
            if entry.is_dir(follow_symlinks=False) and depth < MAX_DEPTH:
                folders.append((entry.path, depth + 1))
            elif entry.is_file(follow_symlinks=False):
                yield entry.path, entry.stat(follow_symlinks=False).st_size


def collect(task: dict[str, Any], given: dict[str, bytes]) -> tuple[list[tuple[str, bytes]], int]:
    """Files that are new or changed, and how many more are beyond the limits. given: digests by path."""
    files: list[tuple[str, bytes]] = []
    left_out = 0
    room = task["max_bytes"]
    for path, size in made_files():
        if len(files) >= task["max_files"] or size > room:
            left_out += 1
            continue
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                data = file.read(room)
        except OSError:
            continue
        if given.get(path) != hashlib.sha256(data).digest():
            files.append((path[len(WORK) + 1 :].replace("/", "_"), data))
            room -= len(data)
    return files, left_out


def main() -> int:
    task, given = protocol.read(sys.stdin.buffer)
    os.mkdir(WORK)  # noqa: PTH102
    digests = {}
    for name, data in given:
        path = os.path.join(WORK, os.path.basename(name))  # noqa: PTH118, PTH119
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(data)
        digests[path] = hashlib.sha256(data).digest()
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    child = os.fork()
    if child == 0:
        return become_the_code(task, out_end, err_end)
    os.close(out_end)
    os.close(err_end)
    answer = watch(child, out, err, task)
    files, left_out = collect(task, digests)
    protocol.write(sys.stdout.buffer, {**answer, "left_out": left_out}, files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
