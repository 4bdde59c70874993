"""Conditions on JSON attributes in SQL, by the rules of `backends/telemetry/filters.py`.

Names and values are bound, never part of the statement: a name is looked up as a value (`json_each.key = ?` and
`attributes -> ?`), since a JSON path would have to be escaped.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from backends.telemetry.attributes import canonical
from backends.telemetry.filters import comparable, is_number
from generated.models import QueryCondition

Condition = sa.ColumnElement[bool]


def met(dialect: str, attributes: sa.Column[Any], condition: QueryCondition) -> Condition:
    """Whether the attributes of a row meet the condition."""
    wanted = canonical(condition.value)
    if condition.op in ("gt", "lt") and not comparable(wanted):
        return sa.false()
    if dialect == "postgresql":
        return _postgres(attributes, condition, wanted)
    return _sqlite(attributes, condition, wanted)


def present(dialect: str, attributes: sa.Column[Any], name: str) -> Condition:
    """Whether the attribute is there and not null."""
    if dialect == "postgresql":
        return sa.func.coalesce(sa.func.jsonb_typeof(_item(attributes, name)) != "null", sa.false())
    members = _members(attributes)
    return _exists(members, members.c.key == name, members.c.type != "null")


def _sqlite(attributes: sa.Column[Any], condition: QueryCondition, wanted: Any) -> Condition:
    members = _members(attributes)
    value, kind = members.c.value, members.c.type
    same: Condition
    if isinstance(wanted, bool) or wanted is None:
        same = kind == ("null" if wanted is None else str(wanted).lower())
    elif isinstance(wanted, str):
        operand = sa.literal(wanted, sa.Text)
        same = sa.and_(kind == "text", _compared(condition, value, operand))
    elif is_number(wanted):
        number = sa.literal(wanted, sa.BigInteger if isinstance(wanted, int) else sa.Double)
        same = sa.and_(kind.in_(["integer", "real"]), _compared(condition, value, number))
    else:
        text = json.dumps(wanted, separators=(",", ":"))
        same = sa.and_(kind.in_(["array", "object"]), value == sa.literal(text, sa.Text))
    return _exists(members, members.c.key == condition.key, sa.not_(same) if condition.op == "ne" else same)


def _postgres(attributes: sa.Column[Any], condition: QueryCondition, wanted: Any) -> Condition:
    item = _item(attributes, condition.key)
    operand = sa.cast(sa.literal(json.dumps(wanted), sa.Text), postgresql.JSONB)
    found: Condition
    if condition.op in ("eq", "ne"):
        found = item == operand if condition.op == "eq" else item != operand
    elif is_number(wanted):
        found = sa.and_(sa.func.jsonb_typeof(item) == "number", _compared(condition, item, operand))
    else:
        text = attributes.op("->>", return_type=sa.Text())(sa.literal(condition.key, sa.Text)).collate("C")
        found = sa.and_(sa.func.jsonb_typeof(item) == "string", _compared(condition, text, sa.literal(wanted, sa.Text)))
    return sa.func.coalesce(found, sa.false())


def _compared(condition: QueryCondition, value: Any, operand: Any) -> Condition:
    """`ne` is the opposite of what this says for it."""
    found: Condition = {"gt": value > operand, "lt": value < operand}.get(condition.op, value == operand)
    return found


def _item(attributes: sa.Column[Any], name: str) -> sa.ColumnElement[Any]:
    return attributes.op("->", return_type=postgresql.JSONB())(sa.literal(name, sa.Text))


def _members(attributes: sa.Column[Any]) -> Any:
    return sa.func.json_each(attributes).table_valued("key", "value", "type")


def _exists(members: Any, *conditions: Condition) -> Condition:
    query = sa.select(sa.literal(1)).select_from(members).where(*conditions)
    return query.correlate_except(members).exists()
