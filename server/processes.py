"""The line between `onnxstack serve` and the gunicorn it starts: readiness up, end down."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

READY_VARIABLE = "ONNXSTACK_READY_FD"
PARENT_VARIABLE = "ONNXSTACK_PARENT_PID"
RESERVED = (READY_VARIABLE, PARENT_VARIABLE)
_PR_SET_PDEATHSIG = 1
_LINE_LIMIT = 4000  # a write to a pipe of up to 4096 bytes is atomic


@dataclass(frozen=True, slots=True)
class Ready:
    """What a worker tells when it answers. models: `(identifier, kind)` of the registered models."""

    pid: int
    models: tuple[tuple[str, str], ...]

    def encode(self) -> bytes:
        """One line; models that would make it too long for one write are left out."""
        ready = self
        while len(line := json.dumps(asdict(ready)).encode() + b"\n") > _LINE_LIMIT:
            ready = Ready(ready.pid, ready.models[: len(ready.models) // 2])
        return line

    @classmethod
    def decode(cls, line: bytes) -> Ready:
        values = json.loads(line)
        return cls(values["pid"], tuple((name, kind) for name, kind in values["models"]))


def report_ready(models: Sequence[tuple[str, str]]) -> None:
    """Tell the process that started us, if it asked to know, that this worker answers."""
    if (descriptor := os.environ.get(READY_VARIABLE)) is None:
        return
    try:
        os.write(int(descriptor), Ready(os.getpid(), tuple(models)).encode())
    except (OSError, ValueError):  # a replaced worker: the other end stopped to listen long ago
        logging.getLogger(__name__).debug("nobody waits for readiness")


def end_with_starter() -> None:
    """Get SIGTERM when `onnxstack serve`, if that started this process, is killed."""
    if (parent := os.environ.get(PARENT_VARIABLE)) is not None:
        end_with_parent(int(parent))


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when `parent`, which started this process, ends in any way. Does nothing where there is no prctl."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGTERM)
