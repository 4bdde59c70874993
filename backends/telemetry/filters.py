"""Conditions on attributes, by the rules that every store keeps.

A missing attribute never matches, also not `ne`. `eq`: the same JSON value of the same type; 1 equals 1.0. `ne`: the
attribute is there and not equal. `gt`, `lt`: numbers with numbers by value, texts with texts by code points; any other
pair never matches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backends.telemetry.attributes import canonical
from generated.models import QueryCondition


def matches(attributes: Mapping[str, Any], filters: Sequence[QueryCondition]) -> bool:
    """Whether the attributes meet all conditions."""
    return all(each.key in attributes and _holds(attributes[each.key], each) for each in filters)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def comparable(value: Any) -> bool:
    """Whether `gt` and `lt` have a meaning for the value of a condition."""
    return isinstance(value, str) or is_number(value)


def _holds(found: Any, condition: QueryCondition) -> bool:
    wanted = canonical(condition.value)
    same_kind = is_number(found) == is_number(wanted) and isinstance(found, str) == isinstance(wanted, str)
    if condition.op in ("eq", "ne"):
        equal = same_kind and isinstance(found, bool) == isinstance(wanted, bool) and bool(found == wanted)
        return equal == (condition.op == "eq")
    if not same_kind or not comparable(wanted):
        return False
    return bool(found > wanted if condition.op == "gt" else found < wanted)
