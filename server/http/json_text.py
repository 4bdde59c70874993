"""Strict JSON from untrusted bytes, in bounded time.

Refused, although Python's parser takes them: NaN and Infinity, numbers that overflow a float, duplicate member names
(two readers of the same text may disagree on which one counts), U+0000 (PostgreSQL cannot store it), lone surrogates,
nesting beyond a limit, and texts with more values than a limit, before any of them is built.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from backends.errors import BadRequest, PayloadTooLarge

_MAX_INTEGER_DIGITS = 300  # what still fits a float, so that no later conversion can overflow
_SLICE_BYTES = 1024 * 1024
_ODD_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


def parse_json(raw: bytes, *, depth: int, values: int) -> Any:
    """The value of a JSON text.

    depth: deepest nesting that is accepted. values: rough number of values that is accepted, counted by `,`, `[`, `{`.

    Raises:
        BadRequest: not strict JSON. PayloadTooLarge: more than `values`.
    """
    _check_count(raw, values)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"byte {error.start} is not valid UTF-8", where="body") from None
    try:
        value = json.loads(
            text,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_integer,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise BadRequest(f"nested deeper than {depth} levels", where="body") from None
    except ValueError as error:
        raise BadRequest(f"malformed JSON: {error}", where="body") from None
    odd = _ODD_ESCAPE.search(text) is not None
    if odd or text.count("[") + text.count("{") > depth:
        _inspect(value, depth, odd)
    return value


def _check_count(raw: bytes, values: int) -> None:
    counted = 0
    for start in range(0, len(raw), _SLICE_BYTES):  # stops early: counting all of a large dense body takes long itself
        counted += sum(raw.count(mark, start, start + _SLICE_BYTES) for mark in (b",", b"[", b"{"))
        if counted > values:
            raise PayloadTooLarge(f"more than about {values} JSON values; send less at a time", where="body")


def _inspect(value: Any, depth: int, odd: bool) -> None:
    level = [value]
    for _ in range(depth):
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                if odd:
                    for name in node:
                        _check_text(name)
                below.extend(node.values())
            elif isinstance(node, list):
                below.extend(node)
            elif odd and isinstance(node, str):
                _check_text(node)
        if not below:
            return
        level = below
    if any(isinstance(node, dict | list) for node in level):
        raise BadRequest(f"nested deeper than {depth} levels", where="body")
    for node in level:
        if odd and isinstance(node, str):
            _check_text(node)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise BadRequest("a string holds U+0000, which is not accepted", where="body")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRequest("a string holds a lone surrogate, which is not a character", where="body") from None


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > _MAX_INTEGER_DIGITS:
        raise ValueError(f"an integer with more than {_MAX_INTEGER_DIGITS} digits")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the member {name[:50]!r} is given twice")
            seen.add(name)
    return value
