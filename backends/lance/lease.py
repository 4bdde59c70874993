"""The right to maintain the tables of one location, held by at most one process of a machine at a time."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

LOCK_FILE = ".maintenance.lock"


class MaintenanceLease:
    """A file lock, kept from the first success until `release`; the kernel frees it when the process dies.

    directory: of the tables; None for object storage, where there is no lock and conflicting commits are retried.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._file: int | None = None

    def acquire(self) -> bool:
        """True when this process holds the lease; never waits."""
        if self._directory is None:
            return True
        with self._lock:
            if self._file is not None:
                return True
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                file = os.open(self._directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError:
                return False
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(file)
                return False
            self._file = file
            return True

    def release(self) -> None:
        """Let another process maintain."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None
