"""The lines between our processes: `onnxstack serve` starts gunicorn, whose master starts a keeper for each engine and
the workers. Readiness goes up, the end goes down, and addresses of engines go to the workers."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from backends.processes import end_with_parent

READY_VARIABLE = "ONNXSTACK_READY_FD"
PARENT_VARIABLE = "ONNXSTACK_PARENT_PID"
ENGINES_VARIABLE = "ONNXSTACK_ENGINE_ADDRESSES"
"""JSON: id of an inference provider -> address of the engine that the server has started for it."""
RESERVED = (READY_VARIABLE, PARENT_VARIABLE, ENGINES_VARIABLE)
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
    """Get SIGTERM when the process of ours that started this one, if one did, is killed."""
    if (parent := os.environ.get(PARENT_VARIABLE)) is not None:
        end_with_parent(int(parent))
