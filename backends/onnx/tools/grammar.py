r"""Grammars of calls in the Lark dialect of llguidance.

Values have one way to be written, with no white space that a model could go on with for ever. Numbers are bounded in
digits and values of any type in nesting; strings and lists end where `max_tokens` ends them, since no shorter limit is
right for both a city and a program. Escapes are those that every model knows: `\uXXXX` could write half a character.
Rules are numbered, so that no name of a caller is part of the grammar's syntax.
Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backends.onnx.tools.parameter_types import ANY, MAX_NESTING, ParameterType
from backends.onnx.tools.python_syntax import write_literal
from backends.onnx.tools.signatures import Signature

MAX_CALLS = 16
"""In one answer; a small model would repeat a call until its tokens run out."""
MORE = f"{{0,{MAX_CALLS - 1}}}"
"""How often another call may follow the first."""
TEXT = "TEXT: /(?s:.*)/"
"""Any text; special tokens are none."""


@dataclass(frozen=True, slots=True)
class Notation:
    """How values are written. quoted: each quote with what may stand between two of them. constant: a value as text.
    key: how a parameter's name stands before its value."""

    quoted: tuple[tuple[str, str], ...]
    constant: Callable[[Any], str]
    key: Callable[[str], str]

    def string(self, least: int | None = None, most: int | None = None) -> str:
        """A terminal for strings of so many characters."""
        often = "*" if least is most is None else f"{{{least or 0},{'' if most is None else most}}}"
        return f"/{'|'.join(f'{quote}({character}){often}{quote}' for quote, character in self.quoted)}/"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


JSON = Notation(
    quoted=(('"', r'[^"\\\x00-\x1F\x7F]|\\["\\nrtbf]'),),
    constant=_json,
    key=lambda name: f"{_json(name)}: ",
)
PYTHON = Notation(
    quoted=(('"', r"""[^"\\\x00-\x1F\x7F]|\\["'\\nrtbf]"""), ("'", r"""[^'\\\x00-\x1F\x7F]|\\["'\\nrtbf]""")),
    constant=write_literal,
    key=lambda name: f"{name}=",
)


def literal(text: str) -> str:
    """`text` as a string of Lark."""
    return json.dumps(text)


class Grammar:
    """A Lark grammar that is put together rule by rule."""

    def __init__(self, notation: Notation) -> None:
        self._notation = notation
        self._lines = ["%llguidance {}"]
        self._values: dict[tuple[ParameterType, int], str] = {}
        self._terminals = {
            "STRING": notation.string(),
            "INTEGER": r"/-?(0|[1-9][0-9]{0,17})/",
            "NUMBER": r"/-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?/",
        }

    def add(self, *lines: str) -> None:
        """Append rules or terminals as they are."""
        self._lines += lines

    def terminal(self, name: str, body: str) -> None:
        """Define a terminal; once more changes nothing."""
        self._terminals[name] = body

    def lark(self) -> str:
        """The grammar's text."""
        return "\n".join([*self._lines, *(f"{name}: {body}" for name, body in self._terminals.items()), ""])

    def arguments(self, signature: Signature, number: int) -> str:
        """The rule for the arguments of a tool without what encloses them: all required ones, any optional ones, in the
        order of their definition. `number` tells the tool from the others."""
        pairs = [(self._notation.key(p.name), self.value(p.type), p.required) for p in signature.parameters]
        return self._list(pairs, str(number))

    def value(self, kind: ParameterType, nesting: int = 0) -> str:
        """The rule or terminal for a value of this type."""
        match kind.kind:
            case "string":
                return self._string(kind)
            case "integer" if kind.least is kind.most is None:
                return "INTEGER"
            case "number":
                return "NUMBER"
            case "null":
                return self._constant(None)
        name = self._values.get((kind, nesting))
        if name is None:
            name = self._values[kind, nesting] = f"value_{len(self._values)}"
            self.add(f"{name}: {self._body(kind, nesting, name)}")
        return name

    def _list(self, pairs: Sequence[tuple[str, str, bool]], name: str, further: str = "") -> str:
        """The rule for keys with their values, and whether they are required, in this order. further: rule for a key
        and a value that may come behind them, any number of times."""
        # Two rules for each pair: the rest of the list from it on when nothing was written yet, and when there
        # was. So the grammar grows with the number of pairs, not with that of their combinations.
        rest_first, rest_later = "", ""
        if further:
            rest_first, rest_later = f"first_{name}", f"later_{name}"
            self.add(f'{rest_later}: (", " {further})*', f"{rest_first}: {further} {rest_later} |")
        for position, (key, value, required) in reversed(list(enumerate(pairs))):
            first, later = f"first_{name}_{position}", f"later_{name}_{position}"
            pair = f"{literal(key)} {value} {rest_later}"
            next_pair = f"{literal(', ' + key)} {value} {rest_later}"
            if required:
                self.add(f"{first}: {pair}", f"{later}: {next_pair}")
            else:
                self.add(f"{first}: {pair} | {rest_first}", f"{later}: {next_pair} | {rest_later}")
            rest_first, rest_later = first, later
        return rest_first

    def _string(self, kind: ParameterType) -> str:
        if kind.format:
            return f'%json {{"type": "string", "format": {json.dumps(kind.format)}}}'
        if kind.least is kind.most is None:
            return "STRING"
        name = f"STRING_{kind.least or 0}_{'' if kind.most is None else kind.most}"
        self.terminal(name, self._notation.string(kind.least, kind.most))
        return name

    def _constant(self, value: Any) -> str:
        return literal(self._notation.constant(value))

    def _body(self, kind: ParameterType, nesting: int, name: str) -> str:
        match kind.kind:
            case "boolean":
                return f"{self._constant(True)} | {self._constant(False)}"
            case "integer":
                return f"%json {json.dumps(kind.json_schema())}"
            case "enum":
                return " | ".join(self._constant(json.loads(constant)) for constant in kind.constants)
            case "union":
                return " | ".join(self.value(item, nesting) for item in kind.items)
            case "array":
                item = self.value(kind.items[0], nesting + 1)
                return _array(item, kind)
            case "record":
                # In both notations names stand in quotes.
                pairs = [(f"{_json(m.name)}: ", self.value(m.type, nesting), m.required) for m in kind.members]
                further = f'STRING ": " {self.value(kind.items[0], nesting + 1)}' if kind.items else ""
                return f'"{{" {self._list(pairs, name, further)} "}}"'
            case "object":
                item = self.value(kind.items[0], nesting + 1)
                return f'"{{}}" | "{{" STRING ": " {item} (", " STRING ": " {item})* "}}"'
            case _:
                scalars = [self.value(scalar) for scalar in _SCALARS]
                deeper = [self.value(container, nesting) for container in _CONTAINERS] if nesting < MAX_NESTING else []
                return " | ".join([*scalars, *deeper])


def _array(item: str, kind: ParameterType) -> str:
    """A list of so many items as its type says."""
    least, most = kind.least or 0, kind.most
    if most == 0:
        return '"[]"'
    often = "*" if least < 2 and most is None else f"{{{max(0, least - 1)},{'' if most is None else most - 1}}}"
    some = f'"[" {item} (", " {item}){often} "]"'
    return some if least else f'"[]" | {some}'


_SCALARS = (ParameterType("string"), ParameterType("number"), ParameterType("boolean"), ParameterType("null"))
_CONTAINERS = (ParameterType("array", (ANY,)), ParameterType("object", (ANY,)))
