"""Attributes as they are kept: plain JSON that every database can hold and compare, and bounded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

MAX_ATTRIBUTES = 128
"""Attributes of one span, event or metric; further ones are dropped."""
MAX_KEY = 256
"""Characters of an attribute's name; a longer one is cut."""
MAX_VALUE = 32 * 1024
"""Characters of one value as JSON; a longer text is cut, a longer list loses its last items."""
MAX_TOTAL = 128 * 1024
"""Characters of all values together; what no longer fits is dropped."""

_INT64 = range(-(2**63), 2**63)


def bounded(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The attributes within the limits of this module, each value as `canonical` has it."""
    kept: dict[str, Any] = {}
    room = MAX_TOTAL
    for name, given in (attributes or {}).items():
        if len(kept) >= MAX_ATTRIBUTES:
            break
        value, size = _cut(canonical(given))
        if size <= room:
            kept[name[:MAX_KEY]] = value
            room -= size
    return kept


def canonical(value: Any) -> Any:
    """The value in a form in which equal values are equal texts: members of objects in order, numbers that databases
    know, no NaN, U+0000 or lone surrogates."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if value in _INT64 else _float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return (
            value.replace("\0", "�").encode("utf-8", "replace").decode()
            if not value.isascii() or "\0" in value
            else value
        )
    if isinstance(value, Mapping):
        return {canonical(str(name)): canonical(value[name]) for name in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return str(value)


def _float(value: int) -> float | str:
    try:
        return float(value)
    except OverflowError:
        return "Infinity" if value > 0 else "-Infinity"


def _cut(value: Any) -> tuple[Any, int]:
    """The value cut to `MAX_VALUE` characters, and its length."""
    if isinstance(value, str):
        return value[:MAX_VALUE], min(len(value), MAX_VALUE)
    if not isinstance(value, dict | list):
        return value, 32
    if isinstance(value, list):
        items: list[Any] = []
        size = 2
        for item in value:
            length = len(item) if isinstance(item, str) else len(json.dumps(item))
            if size + length > MAX_VALUE:
                break
            items.append(item)
            size += length + 2
        return items, size
    text = json.dumps(value, ensure_ascii=False)
    return (value, len(text)) if len(text) <= MAX_VALUE else (text[:MAX_VALUE], MAX_VALUE)
