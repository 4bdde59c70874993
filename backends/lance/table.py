"""One table of chunks in LanceDB: the only module that speaks its API.

Importing it imports lancedb, which takes seconds: `LanceDatabase` does so at the first use. It is the asynchronous API,
since one query makes five calls, and each call of the synchronous one changes threads: that took 2 ms.
Methods raise LanceDB's own errors; `LanceDatabase.run` translates them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import numpy as np
import pyarrow as pa
from lancedb.db import AsyncConnection
from lancedb.expr import Expr, col, lit
from lancedb.index import FTS, HnswSq
from lancedb.query import MatchQuery
from lancedb.table import AsyncTable
from numpy.typing import NDArray

from backends.lance.maintenance import PARTITION_ROWS, TableState
from backends.lance.rows import RESULT, TEXT, WORD_RESULT, dimension_of, from_arrow, matches, schema
from backends.ports import ScoredChunk

INDEX_NAME = "vector_idx"
TEXT_INDEX_NAME = "text_idx"
# On 100,000 x 384 recall@10 is 0.997 to 0.998 at 64 and 1.0 at 96 candidates; their times differ less than two runs do.
CANDIDATES = 96
REFINE = 2
BUILD_CANDIDATES = 150  # half of LanceDB's default, which was not measured beside it
KEEP_ALL = timedelta(days=36_500)
EXACT_FROM = 1000  # so many chunks are found faster, and exactly, by a scan


class ChunkTable:
    """A table, used in the event loop that opened it. dimension: of its vectors."""

    def __init__(self, table: AsyncTable, dimension: int) -> None:
        self._table = table
        self.dimension = dimension

    @classmethod
    async def open(cls, connection: AsyncConnection, name: str) -> ChunkTable:
        table = await connection.open_table(name)
        return cls(table, dimension_of(await table.schema()))

    @classmethod
    async def create(cls, connection: AsyncConnection, name: str, dimension: int) -> None:
        table = await connection.create_table(name, schema=schema(dimension))
        await cls(table, dimension).build_text_index()

    async def refresh(self) -> None:
        """See what any process committed before this call.

        Once per operation: LanceDB's own check takes place at each of its calls, and cost a query about 1 ms.
        """
        await self._table.checkout_latest()  # type: ignore[no-untyped-call]

    async def add(self, rows: pa.Table) -> None:
        """Append rows of `rows.schema` in one commit."""
        await self._table.add(rows)

    async def replace(self, document_ids: Sequence[str], rows: pa.Table) -> None:
        """Put the rows in the place of all rows of these documents, in one commit.

        Where there are none it is an append, which reads nothing of the table; else the ids of all rows are compared
        (80 ms for 50,000). Whoever calls it keeps other writers of the documents away.
        """
        theirs = col("document_id").isin(list(document_ids))
        old = (await self._table.query().where(theirs).select(["id"]).to_arrow()).column("id").to_pylist()
        if not old:
            if rows.num_rows:
                await self._table.add(rows)
        elif not rows.num_rows:
            await self._table.delete(theirs)
        else:
            # The ids are new: every row is inserted, and of those that the source lacks the old ones go. A merge takes
            # its condition as text, in which a backslash escapes quotes and `to_sql` leaves it: so by ids, ours.
            merge = self._table.merge_insert("id").when_not_matched_insert_all()
            await merge.when_not_matched_by_source_delete(col("id").isin(old).to_sql()).execute(rows)

    async def nearest(self, unit: NDArray[np.float32], limit: int, now: datetime) -> list[ScoredChunk]:
        """The nearest chunks that are not expired, best first.

        A filter makes a search of the index four times as slow, and maintenance keeps expired rows few: so the first
        search goes without, and only one that met expired rows is repeated with it.
        """
        exact = limit >= EXACT_FROM
        found = await self._search(unit, limit, exact=exact)
        if any(hit.chunk.expires_at is not None and hit.chunk.expires_at <= now for hit in found):
            found = await self._search(unit, limit, exact=exact, only=_live(now))
        if not exact and len(found) < limit and len(found) < await self._table.count_rows():
            # The graph of an index can lose rows, such as some of very many equal ones; a scan does not.
            found = await self._search(unit, limit, exact=True, only=_live(now))
        return found

    async def match(self, text: str, limit: int, now: datetime) -> list[ScoredChunk]:
        """The chunks that are not expired and match the words best, best first.

        Rows outside the index are read one by one, 14 ms per 1000.
        """
        found = await self._matching(text, limit)
        if any(hit.chunk.expires_at is not None and hit.chunk.expires_at <= now for hit in found):
            found = await self._matching(text, limit, only=_live(now))
        return found

    async def count(self, now: datetime) -> int:
        """Number of rows that are not expired."""
        return await self._table.count_rows(_live(now).to_sql())

    async def delete_expired(self, now: datetime) -> None:
        """Delete what is expired; without any, no version is made."""
        expired = col("expires_at") <= lit(now)
        if await self._table.count_rows(expired.to_sql()):
            await self._table.delete(expired)

    async def state(self) -> TableState:
        """Sizes that decide about maintenance."""
        stats = cast("dict[str, Any]", await self._table.stats())  # declared as a class, returned as a dict
        rows, fragments = int(stats["num_rows"]), int(stats["fragment_stats"]["num_fragments"])
        words = await self._table.index_stats(TEXT_INDEX_NAME)
        unread = None if words is None else words.num_unindexed_rows
        index = await self._table.index_stats(INDEX_NAME)
        if index is None:
            return TableState(rows, fragments, text_unindexed=unread)
        indexed, parts = index.num_indexed_rows, index.num_indices or 1
        return TableState(rows, fragments, indexed, index.num_unindexed_rows, parts, text_unindexed=unread)

    async def build_index(self) -> None:
        """Index all rows anew. Appends go on meanwhile, their rows are the index's tail."""
        partitions = max(1, round(await self._table.count_rows() / PARTITION_ROWS))
        config = HnswSq(distance_type="cosine", num_partitions=partitions, ef_construction=BUILD_CANDIDATES)
        await self._table.create_index("vector", config=config, name=INDEX_NAME, replace=True)

    async def build_text_index(self) -> None:
        """Index the words of all rows anew: case, accents, English endings and stop words do not count."""
        await self._table.create_index(TEXT, config=FTS(), name=TEXT_INDEX_NAME, replace=True)

    async def optimize(self, keep_versions: timedelta = KEEP_ALL) -> None:
        """Merge small fragments, add the tails to the indexes as parts, remove versions older than `keep_versions`."""
        await self._table.optimize(cleanup_older_than=keep_versions)

    async def renew(self) -> None:
        """Commit the table as it is once more."""
        await self._table.delete("false")

    async def version(self) -> int:
        """Number of the latest commit."""
        return int(await self._table.version())

    async def _search(
        self, unit: NDArray[np.float32], limit: int, *, exact: bool, only: Expr | None = None
    ) -> list[ScoredChunk]:
        search = self._table.query().nearest_to(unit).column("vector").distance_type("cosine")
        search = search.limit(limit).select(RESULT)
        search = search.bypass_vector_index() if exact else search.ef(max(CANDIDATES, 2 * limit)).refine_factor(REFINE)
        if only is not None:
            search = search.where(only)
        return from_arrow(await search.to_arrow())

    async def _matching(self, text: str, limit: int, *, only: Expr | None = None) -> list[ScoredChunk]:
        words = MatchQuery(text, TEXT)  # type: ignore[call-arg]  # its defaults are of another dataclass library
        search = self._table.query().nearest_to_text(words).limit(limit).select(WORD_RESULT)
        if only is not None:
            search = search.where(only)
        return matches(await search.to_arrow())


def _live(now: datetime) -> Expr:
    return col("expires_at") > lit(now)
