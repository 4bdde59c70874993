"""Schemas of strangers, and calls against them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from backends.errors import BadRequest
from backends.tools.schemas import check_arguments, plain_json

SCHEMA = {
    "type": "object",
    "properties": {
        "at": {"type": "object", "properties": {"x/y": {"type": "integer", "maximum": 20}}, "required": ["x/y"]},
        "name": {"type": "string", "pattern": "^[a-z]+$"},
    },
    "required": ["at"],
}


def test_arguments_that_fit_are_taken() -> None:
    check_arguments({"at": {"x/y": 20}, "name": "abc"}, SCHEMA, tool="t", where="/kwargs")


@pytest.mark.parametrize(
    ("arguments", "where", "said"),
    [
        ({"at": {"x/y": 21}}, "/kwargs/at/x~1y", "/at/x~1y must meet `maximum` 20"),
        ({"at": {}}, "/kwargs/at", '/at must meet `required` ["x/y"]'),
        ({}, "/kwargs", "the object must meet `required`"),
        ({"at": {"x/y": 1}, "name": "A"}, "/kwargs/name", "`pattern`"),
    ],
)
def test_what_does_not_fit_is_named_with_what_must_be_met(arguments: Any, where: str, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_arguments(arguments, SCHEMA, tool="t", where="/kwargs")
    assert refused.value.where == where and said in refused.value.message


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 7},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "#/$defs/none"},
        {"properties": {"a": {"pattern": "(?=a)(b"}}},
    ],
)
def test_a_schema_that_cannot_be_read_is_left_to_its_server_and_nothing_is_fetched(schema: Any) -> None:
    check_arguments({"a": "b"}, schema, tool="t", where="/kwargs")


def test_a_catastrophic_pattern_takes_no_time() -> None:
    started = time.process_time()
    with pytest.raises(BadRequest):
        check_arguments({"a": "a" * 50_000 + "!"}, {"properties": {"a": {"pattern": "^(a+)+$"}}}, tool="t", where="")
    assert time.process_time() - started < 1


def test_what_no_database_or_message_could_hold_is_made_plain() -> None:
    strange = {"a\ud800": ["x\0y", float("nan"), 10**30, -(10**30), True, None, (1,)], 3: object}
    plain = plain_json(strange)
    assert plain["a?"] == ["x�y", None, 2.0**63, -(2.0**63), True, None, [1]]
    assert isinstance(plain["3"], str)
