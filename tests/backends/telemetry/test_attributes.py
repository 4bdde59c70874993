"""What an attribute may be when it is kept (fault 26)."""

from __future__ import annotations

import json

from backends.telemetry.attributes import MAX_ATTRIBUTES, MAX_KEY, MAX_TOTAL, MAX_VALUE, bounded, canonical


def test_plain_values_stay_as_they_are() -> None:
    values = {
        "text": "é",
        "whole": 3,
        "real": 1.5,
        "yes": True,
        "null": None,
        "list": ["a", 1],
        "object": {"a": [None]},
    }
    assert bounded(values) == values
    assert bounded(None) == {}


def test_values_that_json_or_a_database_cannot_hold_become_texts_or_numbers_that_it_can() -> None:
    assert canonical(float("nan")) == "nan"
    assert canonical(float("-inf")) == "-inf"
    assert canonical(2**63) == float(2**63)
    assert canonical(-(10**400)) == "-Infinity"
    assert canonical("a\0b\ud800") == "a\ufffdb?"
    assert json.dumps(canonical({"b": 1, "a": 2})) == '{"a": 2, "b": 1}'


def test_there_are_no_more_than_so_many_and_names_are_short() -> None:
    kept = bounded({f"{number:03}{'x' * 1000}": number for number in range(1000)})
    assert len(kept) == MAX_ATTRIBUTES
    assert {len(name) for name in kept} == {MAX_KEY}


def test_large_values_are_cut_and_lists_keep_their_first_items_whole() -> None:
    assert bounded({"k": "x" * 10**6}) == {"k": "x" * MAX_VALUE}
    items = bounded({"k": [json.dumps({"n": "y" * 1000})] * 1000})["k"]
    assert 0 < len(items) <= MAX_VALUE // 1000
    assert all(json.loads(item) for item in items)
    assert len(bounded({"k": {"n": "z" * 10**6}})["k"]) == MAX_VALUE


def test_all_together_are_bounded() -> None:
    kept = bounded({str(number): "x" * MAX_VALUE for number in range(100)})
    assert sum(len(value) for value in kept.values()) == MAX_TOTAL
