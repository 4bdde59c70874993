"""The columns of a dataset, and whether rows are what they say."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.errors import BadRequest

MAX_COLUMNS = 1000
MAX_NAMED = 20
_LISTS_OR_TEXTS = frozenset({"chat_completion_input", "completion_input", "agent_turn_input"})
_ANYTHING = frozenset({"json", "union"})
SCALARS = frozenset({"string", "number", "boolean"})
"""Types that a condition can compare; of the others it can ask only whether there is a value."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a dataset. type: `type` of the contract's ParamType."""

    name: str
    type: str


def columns_of(dataset_schema: Mapping[str, Mapping[str, Any]]) -> tuple[Column, ...]:
    """The columns of a registered schema, by name. Raises BadRequest: none, or too many."""
    if not dataset_schema:
        raise BadRequest("the schema of a dataset needs at least one column", where="/dataset_schema")
    if len(dataset_schema) > MAX_COLUMNS:
        raise BadRequest(
            f"the schema has {len(dataset_schema)} columns, at most {MAX_COLUMNS} are kept", where="/dataset_schema"
        )
    return tuple(Column(name, str(dataset_schema[name]["type"])) for name in sorted(dataset_schema))


def check_names(columns: Sequence[Column], found: Iterable[str], *, where: str) -> None:
    """Return if every column is among the names. Raises BadRequest, naming what lacks and what there is."""
    there = list(found)
    missing = [column.name for column in columns if column.name not in set(there)]
    if missing:
        raise BadRequest(
            f"the data lacks {_columns(missing)} of the dataset's schema; it has {some(there)}", where=where
        )


def check_unknown(columns: Sequence[Column], found: Iterable[str], *, where: str) -> None:
    """Return if every name is a column's. Raises BadRequest, naming what is not."""
    known = {column.name for column in columns}
    unknown = [name for name in found if name not in known]
    if unknown:
        raise BadRequest(
            f"the dataset's schema lacks {_columns(unknown[:MAX_NAMED])}; it has {some(sorted(known))}", where=where
        )


def conform(columns: Sequence[Column], row: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The row with the columns of the schema and no others; NaN and infinities are null, as JSON has none.

    Raises:
        BadRequest: a column is missing or holds another type, by name.
    """
    if any(column.name not in row for column in columns):
        check_names(columns, row, where=where)
    kept = {}
    for column in columns:
        value = without_nan(row[column.name])
        if value is not None and not _fits(column.type, value):
            raise BadRequest(f"column {column.name!r} is {_type_of(value)}, the schema says {column.type}", where=where)
        kept[column.name] = value
    return kept


def as_json(row: Mapping[str, Any], *, where: str) -> str:
    """The row as JSON text. Raises BadRequest: lone surrogates, or nested too deep."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRequest(f"the row cannot be kept as JSON: {error}", where=where) from error
    return text


def without_nan(value: Any) -> Any:
    """The value with null in place of numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return value


def some(names: Sequence[str]) -> str:
    """The first 20 names for a message."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return (", ".join(map(repr, names[:MAX_NAMED])) or "none") + more


def _fits(kind: str, value: Any) -> bool:
    if kind in _ANYTHING:
        return True
    if kind in _LISTS_OR_TEXTS:
        return isinstance(value, list | str | dict)
    return _type_of(value) == kind


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {str: "string", list: "array", dict: "object", type(None): "null"}[type(value)]


def _columns(names: Sequence[str]) -> str:
    return f"{'column' if len(names) == 1 else 'columns'} {', '.join(map(repr, names))}"
