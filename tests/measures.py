"""What a process holds at a moment: memory, file descriptors, threads (proc(5))."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from tests.server.processes import until


@dataclass(frozen=True, slots=True)
class Held:
    """resident_mb: memory that is in use, in megabytes."""

    resident_mb: float
    descriptors: int
    threads: int

    def __str__(self) -> str:
        return f"{self.resident_mb:.1f} MB, {self.descriptors} descriptors, {self.threads} threads"


def joined(threads: list[threading.Thread]) -> None:
    """Return when the threads have ended for the kernel too, which counts them a moment longer than Python does."""
    for thread in threads:
        thread.join()
    tasks = Path("/proc/self/task")
    until(lambda: not any((tasks / str(thread.native_id)).exists() for thread in threads), "end of the threads")


def held_by(pid: int | None = None) -> Held:
    """What a process holds; None is this one."""
    process = Path("/proc") / ("self" if pid is None else str(pid))
    pages = int((process / "statm").read_text().split()[1])
    return Held(
        pages * os.sysconf("SC_PAGESIZE") / 1e6,
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
    )
