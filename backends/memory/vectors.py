"""The VectorIndex port in memory: exact search over all rows."""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from backends.context import CallContext
from backends.errors import Conflict, NotFound
from backends.ports import ScoredChunk, VectorChunk
from backends.vector_rows import (
    VectorRow,
    check_dimension,
    check_table_name,
    check_threshold,
    check_words,
    checked_document_ids,
    checked_max_chunks,
    rows_of,
    score_of,
    unit_rows,
    unit_vector,
)

_WORD = re.compile(r"\w+")
_K1, _B = 1.2, 0.75  # the usual parameters of BM25


@dataclass(slots=True)
class _Table:
    """vectors: float32 [>= rows, dimension], grown by doubling; expires: datetime64[us] [>= rows], NaT for never."""

    dimension: int
    rows: list[VectorRow] = field(default_factory=list)
    vectors: NDArray[np.float32] = field(init=False)
    expires: NDArray[np.datetime64] = field(init=False)

    def __post_init__(self) -> None:
        self.vectors = np.empty((0, self.dimension), np.float32)
        self.expires = np.empty(0, "datetime64[us]")

    def append(self, rows: Sequence[VectorRow], vectors: NDArray[np.float32]) -> None:
        start, end = len(self.rows), len(self.rows) + len(rows)
        if end > len(self.vectors):
            capacity = max(end, 2 * len(self.vectors), 64)
            grown = np.empty((capacity, self.dimension), np.float32)
            grown[:start] = self.vectors[:start]
            expires = np.empty(capacity, "datetime64[us]")
            expires[:start] = self.expires[:start]
            self.vectors, self.expires = grown, expires
        self.vectors[start:end] = vectors
        self.expires[start:end] = [_moment(row.expires_at) for row in rows]
        self.rows.extend(rows)

    def remove(self, document_ids: Collection[str]) -> None:
        keep = [index for index, row in enumerate(self.rows) if row.document_id not in document_ids]
        self.vectors, self.expires = self.vectors[keep], self.expires[keep]
        self.rows = [self.rows[index] for index in keep]

    def alive(self, now: datetime) -> NDArray[np.bool_]:
        """Which rows are not expired."""
        expires = self.expires[: len(self.rows)]
        return np.isnat(expires) | (expires > _moment(now))


class MemoryVectorIndex:
    """Tables that live in the process and end with it. `clock`: the time that expiry is judged by."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._tables: dict[str, _Table] = {}
        self._lock = threading.Lock()

    def create(self, context: CallContext, table: str, dimension: int) -> None:
        context.check()
        check_table_name(table)
        check_dimension(dimension)
        with self._lock:
            there = self._tables.setdefault(table, _Table(dimension))
        if there.dimension != dimension:
            raise Conflict(f"table {table} exists with {there.dimension} dimensions, not {dimension}")

    def drop(self, context: CallContext, table: str) -> None:
        context.check()
        check_table_name(table)
        with self._lock:
            self._tables.pop(table, None)

    def insert(
        self, context: CallContext, table: str, chunks: Sequence[VectorChunk], vectors: NDArray[np.float32]
    ) -> None:
        context.check()
        rows = rows_of(chunks)
        with self._lock:
            found = self._table(table)
            found.append(rows, unit_rows(vectors, found.dimension, rows=len(rows)))

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
        with self._lock:
            found = self._table(table)
            units = unit_rows(vectors, found.dimension, rows=len(rows))
            found.remove(ids)
            found.append(rows, units)

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
        with self._lock:
            found = self._table(table)
            similarities = found.vectors[: len(found.rows)] @ unit_vector(vector, found.dimension)
            indices = np.flatnonzero(found.alive(self._clock()))
            best = indices[np.argsort(-similarities[indices], kind="stable")[:max_chunks]]
            hits = [(found.rows[index], score_of(float(similarities[index]))) for index in best]
        return [
            ScoredChunk(row.chunk(), score)
            for row, score in hits
            if score_threshold is None or score >= score_threshold
        ]

    def match(self, context: CallContext, table: str, text: str, *, max_chunks: int) -> list[ScoredChunk]:
        context.check()
        checked_max_chunks(max_chunks)
        check_words(text)
        with self._lock:
            found = self._table(table)
            alive = found.alive(self._clock())
            rows = [row for row, lives in zip(found.rows, alive, strict=True) if lives]
        scores = _bm25(_words(text), [Counter(_words(row.text)) for row in rows])
        best = sorted((index for index, score in enumerate(scores) if score > 0), key=lambda index: -scores[index])
        return [ScoredChunk(rows[index].chunk(), scores[index]) for index in best[:max_chunks]]

    def count(self, context: CallContext, table: str) -> int:
        context.check()
        with self._lock:
            return int(self._table(table).alive(self._clock()).sum())

    def ping(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing is held."""

    def _table(self, name: str) -> _Table:
        check_table_name(name)
        found = self._tables.get(name)
        if found is None:
            raise NotFound("the vector db's table does not exist", internal=name)
        return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _bm25(words: Sequence[str], texts: Sequence[Counter[str]]) -> list[float]:
    """Score of each text, given as its words: Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009."""
    lengths = [text.total() for text in texts]
    mean = sum(lengths) / len(lengths) if any(lengths) else 1.0
    scores = [0.0] * len(texts)
    for word in set(words):
        having = sum(word in text for text in texts)
        weight = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        for index, text in enumerate(texts):
            often = text[word]
            scores[index] += weight * often * (_K1 + 1) / (often + _K1 * (1 - _B + _B * lengths[index] / mean))
    return scores


def _moment(moment: datetime | None) -> np.datetime64:
    return np.datetime64("NaT") if moment is None else np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")
