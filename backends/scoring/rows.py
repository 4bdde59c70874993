"""Reading the columns of a row."""

from __future__ import annotations

from typing import Any

from backends.errors import BadRequest
from backends.ports import JsonObject


def value_of(row: JsonObject, column: str, *, where: str) -> Any:
    """The column's value, which may be null. Raises BadRequest: the row has no such column."""
    if column not in row:
        there = ", ".join(sorted(row)[:20]) or "none"
        raise BadRequest(f"column {column!r} is missing; the row has {there}", where=where)
    return row[column]


def text_of(row: JsonObject, column: str, *, where: str) -> str:
    """The column's text. Raises BadRequest: it is missing, or no string."""
    value = value_of(row, column, where=where)
    if not isinstance(value, str):
        raise BadRequest(f"must be a string, not {type(value).__name__}", where=f"{where}/{column}")
    return value


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are one: 1 is 1.0, but neither "1" nor true; null is null; NaN is not even itself."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left == right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    return type(left) is type(right) and bool(left == right)
