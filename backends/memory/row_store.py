"""The RowStore port in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

from backends.context import CallContext
from backends.datasets.columns import Column, as_json
from backends.datasets.filters import Filter, matches
from backends.errors import NotFound
from backends.ports import JsonObject


class MemoryRowStore:
    """Tables of JSON texts that live in the process and end with it."""

    def __init__(self) -> None:
        self._tables: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._filling = threading.RLock()

    def create(self, context: CallContext, table: str, columns: Sequence[Column], rows: Iterable[JsonObject]) -> None:
        context.check()
        kept = [as_json(row, where="/rows") for row in rows]
        with self._lock:
            self._tables[table] = kept

    def drop(self, context: CallContext, table: str) -> None:
        context.check()
        with self._lock:
            self._tables.pop(table, None)

    def append(self, context: CallContext, table: str, columns: Sequence[Column], rows: Sequence[JsonObject]) -> None:
        context.check()
        kept = [as_json(row, where="/rows") for row in rows]
        with self._lock:
            self._table(table).extend(kept)

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
        context.check()
        with self._lock:
            texts = list(self._table(table))
        end = None if limit is None else start + limit
        if condition is None:
            yield from map(json.loads, texts[start:end])
            return
        found = [row for row in map(json.loads, texts) if matches(condition, row)]
        yield from found[start:end]

    def count(self, context: CallContext, table: str) -> int:
        context.check()
        with self._lock:
            return len(self._table(table))

    def filling(self, table: str) -> AbstractContextManager[object]:
        return self._filling

    def ping(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing is held."""

    def _table(self, name: str) -> list[str]:
        found = self._tables.get(name)
        if found is None:
            raise NotFound("the dataset's table does not exist", internal=name)
        return found
