"""Strict JSON in bounded time (`facts/faults`, 13)."""

from __future__ import annotations

import re

import pytest

from backends.errors import BadRequest, PayloadTooLarge
from server.http.json_text import parse_json


def parse(raw: bytes, depth: int = 128, values: int = 250_000):
    return parse_json(raw, depth=depth, values=values)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"a": NaN}', "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e999]", "too large"),
        (b"[-1e999]", "too large"),
        (b"[" + b"9" * 100_000 + b"]", "300 digits"),
        (b"[" + b"9" * 301 + b"]", "300 digits"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "malformed"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'[[["\\udfff x"]]]', "surrogate"),
        (b'{"a": "\\u0000"}', "U+0000"),
        (b'{"a": "\x00"}', "malformed"),
        (b'{"a": 1, "a": 2}', "given twice"),
        (b'{"a": {"b": 1, "\\u0062": 1}}', "given twice"),
        (b"[" * 100_000, "nested deeper"),
        (b"[" * 10_000 + b"]" * 10_000, "nested deeper"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested deeper"),
        (b"[" * 129 + b"]" * 129, "nested deeper"),
        (b"{", "malformed"),
        (b"[1,]", "malformed"),
        (b"'a'", "malformed"),
        (b"{} {}", "malformed"),
        (b"\x1f\x8b\x08", "UTF-8"),
    ],
)
def test_what_is_not_strict_json_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(said)) as caught:
        parse(raw)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a": 12345678901234567890123}', {"a": 12345678901234567890123}),
        (b"[1.5e308, -0.0]", [1.5e308, -0.0]),
        (b'"\\ud83d\\ude00 \\\\u0000 \\\\ud800"', "\U0001f600 \\u0000 \\ud800"),
        ('"é模"'.encode(), "é模"),
        (b"[" * 128 + b"]" * 128, None),
        (b" null ", None),
        (b'{"a": null, "b": [null]}', {"a": None, "b": [None]}),
    ],
)
def test_what_is_strict_json_is_read(raw: bytes, value: object) -> None:
    assert parse(raw) == value or raw.startswith(b"[[")


@pytest.mark.parametrize("members", [4_000, 249_000])
def test_one_member_given_twice_among_many_is_found_in_one_pass(members: int) -> None:
    """Compared each with each, a quarter million names would take hours: the test's own timeout."""
    names = b",".join(b'"%d":0' % number for number in range(members))
    with pytest.raises(BadRequest, match=f"'{members - 1}' is given twice"):
        parse(b'{%s,"%d":0}' % (names, members - 1))


def test_a_million_messages_are_refused_before_they_are_parsed() -> None:
    raw = b'{"messages":[' + b'{"role":"user","content":""},' * 1_000_000 + b"this is not JSON"
    with pytest.raises(PayloadTooLarge, match="250000 JSON values"):
        parse(raw)
