"""Calls in Python's syntax."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.onnx.tools.python_syntax import is_word, read_call, write_call

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(), items, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(min_size=1).filter(is_word), VALUES, max_size=4))
def test_what_is_written_is_read_again(arguments: dict[str, Any]) -> None:
    assert read_call(write_call("f", arguments)) == ("f", arguments)


@pytest.mark.parametrize(
    ("raw", "arguments"),
    [
        ("f()", {}),
        (" f ( ) ", {}),
        ("f(a=1,)", {"a": 1}),
        ("f(a='it''s', b = \"\\u00e9\\'\")", {"a": "its", "b": "é'"}),
        ("f(a=(1, 2), b=[(), {}])", {"a": [1, 2], "b": [[], {}]}),
        ("f(class=-1.5e3, from=None)", {"class": -1500.0, "from": None}),
        ("f(a='=', b='a,b')", {"a": "=", "b": "a,b"}),
    ],
)
def test_a_call_is_read_as(raw: str, arguments: dict[str, Any]) -> None:
    assert read_call(raw) == ("f", arguments)


@pytest.mark.parametrize(
    "raw",
    [
        "f",
        "f(",
        "f(1)",
        "f(a)",
        "f(a=)",
        "f(a=b)",
        "f(a=g())",
        "f(a=open('x'))",
        "f(a={1, 2})",
        "f(a={1: 2})",
        "f(a=b'x')",
        "f(a=1j)",
        "f(a='\\ud800')",
        "f(a=1e999)",
        "f(a b=1)",
        "f(,)",
        "f(a=" + "[" * 10_000 + "]" * 10_000 + ")",
        "f(a=" + "-" * 100_000 + "1)",
        "f(a=" + "9" * 10_000 + ")",
        "f(a='\n')",
        "f(a=f'{1}')",
    ],
    ids=lambda raw: raw[:20],
)
def test_what_is_no_call_with_plain_values_is_none(raw: str) -> None:
    assert read_call(raw) is None
