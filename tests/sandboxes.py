"""Where tests of the code interpreter run, which is wherever bubblewrap is installed, and what runs of it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

needs_bubblewrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed: apt-get install bubblewrap"
)


def sandboxes(disk_mb: int) -> list[str]:
    """Processes of this machine that keep a sandbox with so much room."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"--size\0{disk_mb << 20}\0".encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def until_there_is_a_sandbox(disk_mb: int) -> None:
    deadline = time.monotonic() + 10
    while not sandboxes(disk_mb) and time.monotonic() < deadline:
        os.sched_yield()
