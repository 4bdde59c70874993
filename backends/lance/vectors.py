"""The VectorIndex port on LanceDB."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backends.config import VectorSettings
from backends.context import CallContext
from backends.errors import Conflict, Unavailable
from backends.lance.database import LanceDatabase
from backends.lance.maintenance import Maintainer
from backends.lance.writers import WriterTurns
from backends.ports import ScoredChunk, VectorChunk
from backends.vector_rows import (
    check_dimension,
    check_table_name,
    check_threshold,
    check_words,
    checked_document_ids,
    checked_max_chunks,
    rows_of,
    unit_rows,
    unit_vector,
)

if TYPE_CHECKING:
    from backends.lance.table import ChunkTable


class LanceVectorIndex:
    """Vector tables in a directory or object store that any number of threads and processes share.

    location: a directory, or a LanceDB URL such as `s3://bucket/prefix`. clock: the time that expiry is judged by.
    background: keep the tables indexed and compact in a thread; without, only `maintain` does. fsync: as `os.fsync`;
    object storage needs none.
    """

    def __init__(
        self,
        location: str,
        settings: VectorSettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        background: bool = True,
        fsync: Callable[[int], None] = os.fsync,
    ) -> None:
        self._now = clock
        self._new_id = new_id
        self._database = LanceDatabase(
            location, chunk_table, fsync=fsync, index_cache_bytes=settings.index_cache_mb * 1_000_000
        )
        self._turns = WriterTurns(self._database.directory)
        self._maintainer = Maintainer(self._database, settings, now=clock)
        if background:
            self._maintainer.start()

    def create(self, context: CallContext, table: str, dimension: int) -> None:
        context.check()
        check_table_name(table)
        check_dimension(dimension)
        from backends.lance.table import ChunkTable

        self._database.make(table, lambda connection: ChunkTable.create(connection, table, dimension))
        have = self._dimension(table)
        if have != dimension:
            raise Conflict(f"vector table {table} exists with {have} dimensions, not {dimension}")

    def drop(self, context: CallContext, table: str) -> None:
        context.check()
        self._database.drop(table)

    def insert(
        self, context: CallContext, table: str, chunks: Sequence[VectorChunk], vectors: NDArray[np.float32]
    ) -> None:
        context.check()
        rows = rows_of(chunks)
        units = unit_rows(vectors, self._dimension(table), rows=len(rows))
        if not rows:
            return
        from backends.lance.rows import to_arrow

        arrow = to_arrow([self._new_id() for _ in rows], rows, units)
        self._database.commit(table, lambda found: found.add(arrow))

    def replace(
        self,
        context: CallContext,
        table: str,
        document_ids: Sequence[str],
        chunks: Sequence[VectorChunk],
        vectors: NDArray[np.float32],
    ) -> None:
        context.check()
        rows = rows_of(chunks)
        ids = checked_document_ids(document_ids, rows)
        units = unit_rows(vectors, self._dimension(table), rows=len(rows))
        from backends.lance.rows import to_arrow

        arrow = to_arrow([self._new_id() for _ in rows], rows, units)
        with self._turns.turn(table):
            self._database.commit(table, lambda found: found.replace(ids, arrow))

    def query(
        self,
        context: CallContext,
        table: str,
        vector: NDArray[np.float32],
        *,
        max_chunks: int,
        score_threshold: float | None = None,
    ) -> list[ScoredChunk]:
        context.check()
        checked_max_chunks(max_chunks)
        check_threshold(score_threshold)
        now = self._now()
        unit = unit_vector(vector, self._dimension(table))
        hits = self._database.run(table, lambda found: found.nearest(unit, max_chunks, now))
        return [hit for hit in hits if score_threshold is None or hit.score >= score_threshold]

    def match(self, context: CallContext, table: str, text: str, *, max_chunks: int) -> list[ScoredChunk]:
        context.check()
        checked_max_chunks(max_chunks)
        check_words(text)
        now = self._now()
        return self._database.run(table, lambda found: found.match(text, max_chunks, now))

    def count(self, context: CallContext, table: str) -> int:
        context.check()
        return self._database.run(table, lambda found: found.count(self._now()))

    def maintain(self, table: str) -> None:
        """Index, compact and clean one table now, as the background thread would. Raises NotFound."""
        self._maintainer.maintain(table)

    def ping(self) -> None:
        """Cheap on purpose: importing LanceDB takes seconds and waits for the first use."""
        self._database.check_open()
        directory = self._database.directory
        if directory is not None and directory.exists() and not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise Unavailable(
                "the vector directory cannot be read and written", retry_after_s=None, internal=str(directory)
            )

    def close(self) -> None:
        # The build of a large index takes minutes: closing the database ends it.
        self._maintainer.stop()
        self._database.close()
        self._maintainer.close()

    def _dimension(self, table: str) -> int:
        """Dimension of the table's vectors, by memory where that was asked before."""
        known = self._database.known(table)
        return self._database.run(table, _dimension) if known is None else known.dimension


async def _dimension(table: ChunkTable) -> int:
    return table.dimension


def chunk_table() -> type[ChunkTable]:
    from backends.lance.table import ChunkTable

    return ChunkTable
