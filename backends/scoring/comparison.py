"""Functions that compare `generated_answer` with `expected_answer` and ask no model."""

from __future__ import annotations

from collections.abc import Callable

from backends.ports import JsonObject
from backends.scoring.builtin import LATIN
from backends.scoring.patterns import Patterns
from backends.scoring.rows import same, text_of, value_of

Comparison = Callable[[JsonObject, str], bool]
"""Of a row at a JSON pointer."""


def equality(row: JsonObject, where: str) -> bool:
    """Whether both are the same JSON value."""
    return same(value_of(row, "generated_answer", where=where), value_of(row, "expected_answer", where=where))


def subset_of(row: JsonObject, where: str) -> bool:
    """Whether the expected text stands in the generated one."""
    return text_of(row, "expected_answer", where=where) in text_of(row, "generated_answer", where=where)


def parsed(patterns: Patterns) -> Comparison:
    """Whether what the patterns find in the generated text is the expected one.

    A letter of an answer is the same in Latin, Arabic, Bengali and full-width form. What is not found is wrong.
    """

    def compare(row: JsonObject, where: str) -> bool:
        expected = text_of(row, "expected_answer", where=where)
        found = patterns.find(text_of(row, "generated_answer", where=where))
        return found is not None and LATIN.get(found, found) == LATIN.get(expected, expected)

    return compare
