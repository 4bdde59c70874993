"""Calls in the syntax of Python with keyword arguments, `get_weather(city="Paris", days=3)`. Nothing is evaluated.

Unlike in Python, the name and the keywords may be any words, such as `get-weather` and `from`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from backends.onnx.tools.stream import BLANK, plain_arguments

WORD = r"""[^\s()\[\]{}'",=]+"""
"""What a name or a keyword may be."""
_WORD = re.compile(WORD)


def is_word(text: str) -> bool:
    """Whether `text` can be a name or a keyword."""
    return _WORD.fullmatch(text) is not None


def read_call(raw: str) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of a call; None if it is none, or a value in it is no literal that JSON has too."""
    name, parenthesis, rest = raw.strip(BLANK).partition("(")
    if not parenthesis or not rest.endswith(")"):
        return None
    arguments = {}
    for part in _arguments(rest[:-1]):
        key, equals, value = part.partition("=")
        if not equals or not is_word(key.strip(BLANK)):
            return None
        try:
            arguments[key.strip(BLANK)] = ast.literal_eval(value.strip(BLANK))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return None
    plain = plain_arguments(arguments)
    return None if plain is None else (name.strip(BLANK), plain)


def write_call(name: str, arguments: Mapping[str, Any]) -> str:
    """The call of `name` with these keyword arguments."""
    return f"{name}({', '.join(f'{key}={write_literal(value)}' for key, value in arguments.items())})"


def write_literal(value: Any) -> str:
    match value:
        case None | bool():
            return str(value)
        case list():
            return f"[{', '.join(map(write_literal, value))}]"
        case dict():
            return f"{{{', '.join(f'{write_literal(key)}: {write_literal(item)}' for key, item in value.items())}}}"
        case _:
            return json.dumps(value, ensure_ascii=False)  # the escapes of JSON's strings are Python's too


def _arguments(text: str) -> Iterator[str]:
    """The parts of `text` between the commas that are in no brackets and no strings; a last empty one is left out."""
    depth, quote, escaped, begin = 0, "", False, 0
    for at, character in enumerate(text):
        if escaped:
            escaped = False
        elif quote:
            escaped = character == "\\"
            if character == quote:
                quote = ""
        elif character in "\"'":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            yield text[begin:at]
            begin = at + 1
    if text[begin:].strip(BLANK):
        yield text[begin:]
