"""Conditions as nodes, and what they mean for a row."""

from __future__ import annotations

import pytest

from backends.datasets.columns import Column
from backends.datasets.filters import Both, Compare, In, IsNull, Like, Not, matches, parse_filter

COLUMNS = (Column("a", "number"), Column("t", "string"), Column("b", "boolean"), Column("m", "chat_completion_input"))


def test_and_binds_closer_than_or_and_not_closer_than_both() -> None:
    parsed = parse_filter("not a = 1 and b = true or t like 'x%'", COLUMNS)
    left = Both("and", Not(Compare("a", "=", 1.0)), Compare("b", "=", True))
    assert parsed == Both("or", left, Like("t", "starts", "x"))


def test_words_may_be_in_capitals_and_signs_have_two_forms() -> None:
    assert parse_filter("A != 1".replace("A", "a"), COLUMNS) == parse_filter("a <> 1", COLUMNS)
    assert parse_filter("t NOT IN ('x','y')", COLUMNS) == Not(In("t", ("x", "y")))
    assert parse_filter("m IS NOT NULL", COLUMNS) == Not(IsNull("m"))


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("a > 1", None),
        ("not a > 1", None),
        ("a > 1 or t = 'x'", True),
        ("a > 1 and t = 'x'", None),
        ("a > 1 and t = 'y'", False),
        ("a is null and b = false", True),
    ],
)
def test_a_comparison_with_null_is_neither_true_nor_false(condition: str, met: bool | None) -> None:
    assert matches(parse_filter(condition, COLUMNS), {"a": None, "t": "x", "b": False, "m": []}) is met
