"""A directory for as long as one process lives."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path


class HeldDirectory:
    """`<parent>/<prefix>...` for this user alone, held by a lock. Those of the prefix that nobody holds are left over
    from a kill and are removed."""

    def __init__(self, parent: Path, prefix: str) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        for left_over in parent.glob(f"{prefix}*"):
            if not is_held(left_over):
                shutil.rmtree(left_over, ignore_errors=True)
        # Locked before it gets its name, so that nobody takes it for left over.
        unnamed = Path(tempfile.mkdtemp(prefix="new-", dir=parent))
        self._lock = os.open(unnamed / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = unnamed.rename(parent / f"{prefix}{unnamed.name.removeprefix('new-')}")

    def remove(self) -> None:
        """Remove the directory and its lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def is_held(directory: Path) -> bool:
    """Whether a process that lives holds it."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
