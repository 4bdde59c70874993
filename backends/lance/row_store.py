"""The RowStore port on LanceDB."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

from backends.context import CallContext
from backends.datasets.columns import Column
from backends.datasets.filters import Filter
from backends.errors import StackError, Unavailable
from backends.lance.database import LanceDatabase
from backends.ports import JsonObject

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.db import AsyncConnection

    from backends.lance.row_table import RowTable

BATCH_ROWS = 2000
MAX_BATCH_ROWS = 16_000
MAX_FRAGMENTS = 64
KEEP_VERSIONS = timedelta(minutes=10)
KEEP_ALL = timedelta(days=36_500)
_LOCKS = 64


class LanceRowStore:
    """Tables of rows in a directory or object store that any number of threads and processes share.

    location: a directory, or a LanceDB URL such as `s3://bucket/prefix`. fsync: as `os.fsync`.
    """

    def __init__(self, location: str, *, fsync: Callable[[int], None] = os.fsync) -> None:
        self._database: LanceDatabase[RowTable] = LanceDatabase(location, _row_table, fsync=fsync, noun="dataset")
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._compacting = threading.Lock()

    def create(self, context: CallContext, table: str, columns: Sequence[Column], rows: Iterable[JsonObject]) -> None:
        import pyarrow as pa

        from backends.lance.row_table import RowTable, schema

        context.check()
        failures: list[Exception] = []

        def batches() -> Iterator[pa.RecordBatch]:
            # LanceDB puts a text of its own in the place of what taking the rows raises.
            try:
                yield from _batches(context, columns, rows)
            except Exception as error:
                failures.append(error)
                raise

        readers = [pa.RecordBatchReader.from_batches(schema(columns), batches())]

        async def fill(connection: AsyncConnection) -> None:
            if not readers:  # rows are taken once: a second attempt would make a table without them
                raise Unavailable("the dataset's table was changed while it was filled; try again", internal=table)
            await RowTable.create(connection, table, readers.pop())

        try:
            self._database.make(table, fill)
        except StackError:
            if failures:
                raise failures[0] from None
            raise

    def drop(self, context: CallContext, table: str) -> None:
        context.check()
        self._database.drop(table)

    def append(self, context: CallContext, table: str, columns: Sequence[Column], rows: Sequence[JsonObject]) -> None:
        from backends.lance.row_table import to_arrow

        context.check()
        if not rows:
            return
        batch = to_arrow(columns, rows)
        self._database.commit(table, lambda found: found.add(batch))
        with suppress(StackError):  # the rows are there; the next append tidies up
            self._compact(table)

    def scan(
        self,
        context: CallContext,
        table: str,
        columns: Sequence[Column],
        *,
        start: int = 0,
        limit: int | None = None,
        condition: Filter | None = None,
    ) -> Iterator[JsonObject]:
        left, batch = limit, BATCH_ROWS
        while left is None or left > 0:
            context.check()
            size = batch if left is None else min(left, batch)
            if condition is not None:  # which LanceDB applies anew from the first row on, for each batch
                batch = min(2 * batch, MAX_BATCH_ROWS)
            page = self._page(table, columns, start, size, condition)
            yield from page
            if len(page) < size:
                return
            start += size
            left = None if left is None else left - size

    def count(self, context: CallContext, table: str) -> int:
        context.check()
        return self._database.run(table, lambda found: found.count())

    @contextmanager
    def filling(self, table: str) -> Iterator[None]:
        slot = int.from_bytes(hashlib.sha256(table.encode()).digest()[:2]) % _LOCKS
        with self._locks[slot]:
            directory = self._database.directory
            if directory is None:
                yield
                return
            directory.mkdir(parents=True, exist_ok=True)
            file = os.open(directory / f".filling-{slot}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
            finally:
                os.close(file)

    def ping(self) -> None:
        self._database.check_open()
        directory = self._database.directory
        if directory is not None and directory.exists() and not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise Unavailable(
                "the directory of the rows cannot be read and written", retry_after_s=None, internal=str(directory)
            )

    def close(self) -> None:
        self._database.close()

    def _page(
        self, table: str, columns: Sequence[Column], start: int, limit: int, condition: Filter | None
    ) -> list[JsonObject]:
        return self._database.run(table, lambda found: found.page(columns, start, limit, condition))

    def _compact(self, table: str) -> None:
        if not self._compacting.acquire(blocking=False):
            return
        try:
            if self._database.run(table, lambda found: found.fragments()) > MAX_FRAGMENTS:
                self._database.commit(table, lambda found: found.compact(KEEP_ALL))
                # What is removed must be replaced by a version that is on disk.
                self._database.commit(table, lambda found: found.renew())
                self._database.commit(table, lambda found: found.compact(KEEP_VERSIONS))
        finally:
            self._compacting.release()


def _batches(context: CallContext, columns: Sequence[Column], rows: Iterable[JsonObject]) -> Iterator[pa.RecordBatch]:
    from backends.lance.row_table import to_arrow

    source = iter(rows)
    while batch := list(islice(source, BATCH_ROWS)):
        context.check()
        yield to_arrow(columns, batch)


def _row_table() -> type[RowTable]:
    from backends.lance.row_table import RowTable

    return RowTable
