"""Whose turn it is to replace documents of a table: one writer at a time, on this machine.

Two commits that each delete a document and add its new chunks do not conflict where there was nothing to delete, and
both versions would stay. Writers take turns instead.
"""

from __future__ import annotations

import fcntl
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.lance.failures import translated

LOCKS = 16
"""Tables share this number of locks, so that dropped tables leave no files behind."""


class WriterTurns:
    """Locks by table, for any number of threads and processes; the kernel frees those of a process that dies.

    directory: of the tables; None for object storage, where only the threads of one process take turns: other machines
    must not insert the same document at the same moment.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._threads = [threading.Lock() for _ in range(LOCKS)]

    @contextmanager
    def turn(self, table: str) -> Iterator[None]:
        """Hold the table's lock. Raises StorageFull, Unavailable: its file cannot be made."""
        number = zlib.crc32(table.encode()) % LOCKS
        with self._threads[number]:
            if self._directory is None:
                yield
                return
            file = self._locked(self._directory / f".replace-{number}.lock", table)
            try:
                yield
            finally:
                os.close(file)

    def _locked(self, path: Path, table: str) -> int:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except BaseException:
                os.close(file)
                raise
        except OSError as error:
            raise translated(error, table) from error
        return file
