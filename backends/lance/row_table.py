"""One table of dataset rows in LanceDB.

Column `row` holds each row as JSON text, so that whatever JSON can say comes back exactly. The columns that a condition
can compare stand beside it once more, typed: `c<n>` for the n-th column of the schema, and `n<n>` whether it is null,
since typed expressions know no IS NULL. No name of a client ever is a name in LanceDB.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pyarrow as pa
from lancedb.db import AsyncConnection
from lancedb.expr import Expr, col, lit
from lancedb.table import AsyncTable

from backends.datasets.columns import SCALARS, Column, as_json
from backends.datasets.filters import Both, Compare, Filter, In, IsNull, Not, nearest
from backends.ports import JsonObject

_TYPES = {"string": pa.string(), "number": pa.float64(), "boolean": pa.bool_()}


def schema(columns: Sequence[Column]) -> pa.Schema:
    """The columns of a table of rows."""
    fields = [pa.field("row", pa.string(), nullable=False)]
    for index, column in enumerate(columns):
        if column.type in SCALARS:
            fields.append(pa.field(f"c{index}", _TYPES[column.type]))
        fields.append(pa.field(f"n{index}", pa.bool_(), nullable=False))
    return pa.schema(fields)


def to_arrow(columns: Sequence[Column], rows: Sequence[JsonObject]) -> pa.RecordBatch:
    """One Arrow row per row."""
    fields = schema(columns)
    values: list[Sequence[Any]] = [[as_json(row, where=f"/rows/{index}") for index, row in enumerate(rows)]]
    for column in columns:
        cells = [row[column.name] for row in rows]
        if column.type == "number":
            values.append([None if cell is None else nearest(cell) for cell in cells])
        elif column.type in SCALARS:
            values.append(cells)
        values.append([cell is None for cell in cells])
    arrays = [pa.array(cells, field.type) for cells, field in zip(values, fields, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=fields)


class RowTable:
    """A table, used in the event loop that opened it. Methods raise LanceDB's own errors."""

    def __init__(self, table: AsyncTable) -> None:
        self._table = table

    @classmethod
    async def open(cls, connection: AsyncConnection, name: str) -> RowTable:
        return cls(await connection.open_table(name))

    @staticmethod
    async def create(connection: AsyncConnection, name: str, rows: pa.RecordBatchReader) -> None:
        """Make a table of the rows in one commit."""
        await connection.create_table(name, rows)

    async def refresh(self) -> None:
        await self._table.checkout_latest()  # type: ignore[no-untyped-call]

    async def add(self, rows: pa.RecordBatch) -> None:
        """Append the rows in one commit."""
        await self._table.add(rows)

    async def count(self) -> int:
        return await self._table.count_rows()

    async def page(
        self, columns: Sequence[Column], start: int, limit: int, condition: Filter | None
    ) -> list[JsonObject]:
        """The rows from `start` on among those that meet the condition, in the order in which they were added.

        Without a condition LanceDB goes to the row at once, with one it reads the columns that are compared.
        """
        search = self._table.query().select(["row"]).offset(start).limit(limit)
        if condition is not None:
            search = search.where(expression(condition, {column.name: n for n, column in enumerate(columns)}))
        found = await search.to_arrow()
        return [json.loads(text) for text in found.column("row").to_pylist()]

    async def fragments(self) -> int:
        """Number of pieces that the table lies in; each costs a read."""
        stats = cast("dict[str, Any]", await self._table.stats())  # declared as a class, returned as a dict
        return int(stats["fragment_stats"]["num_fragments"])

    async def renew(self) -> None:
        """Commit the table as it is once more."""
        await self._table.delete("false")

    async def compact(self, keep_versions: timedelta) -> None:
        """Merge small pieces, in their order, and remove versions older than `keep_versions`."""
        await self._table.optimize(cleanup_older_than=keep_versions)


def expression(condition: Filter, numbers: dict[str, int]) -> Expr:
    """The condition as LanceDB's typed expression. numbers: of the columns by name."""
    match condition:
        case Both(word, left, right):
            one, other = expression(left, numbers), expression(right, numbers)
            return one.and_(other) if word == "and" else one.or_(other)
        case Not(inner):
            return ~expression(inner, numbers)
        case IsNull(column):
            return col(f"n{numbers[column]}").eq(lit(True))
    cell = col(f"c{numbers[condition.column]}")
    if isinstance(condition, In):
        return cell.isin([lit(value) for value in condition.values])
    if isinstance(condition, Compare):
        compare = {"=": cell.eq, "!=": cell.ne, "<": cell.lt, "<=": cell.lte, ">": cell.gt, ">=": cell.gte}
        return compare[condition.operator](lit(condition.value))
    if condition.kind == "starts":
        return _starts_with(cell, condition.text)
    return (cell.eq if condition.kind == "equals" else cell.contains)(lit(condition.text))


def _starts_with(cell: Expr, text: str) -> Expr:
    """LanceDB orders texts by code points, so those that start with one lie before its successor."""
    for end in range(len(text), 0, -1):
        code = ord(text[end - 1]) + 1
        if code <= sys.maxunicode:
            follower = chr(0xE000 if code == 0xD800 else code)
            return cell.gte(lit(text)).and_(cell.lt(lit(text[: end - 1] + follower)))
    return cell.gte(lit(text))
