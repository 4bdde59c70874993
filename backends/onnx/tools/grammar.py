r"""Grammars of calls in the Lark dialect of llguidance.

Values have one way to be written, with no white space that a model could go on with for ever. Numbers are bounded in
digits and values of any type in nesting; strings and lists end where `max_tokens` ends them, since no shorter limit is
right for both a city and a program. Escapes are those that every model knows: `\uXXXX` could write half a character.
Rules are numbered, so that no name of a caller is part of the grammar's syntax.
Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from backends.onnx.tools.parameter_types import ANY, MAX_NESTING, ParameterType
from backends.onnx.tools.signatures import Signature

MAX_CALLS = 16
"""In one answer; a small model would repeat a call until its tokens run out."""
MORE = f"{{0,{MAX_CALLS - 1}}}"
"""How often another call may follow the first."""
TEXT = "TEXT: /(?s:.*)/"
"""Any text; special tokens are none."""


@dataclass(frozen=True, slots=True)
class Notation:
    """How values are written. string: a terminal. true, false, null: constants. key: how a parameter's name stands
    before its value."""

    string: str
    true: str
    false: str
    null: str
    key: Callable[[str], str]


JSON = Notation(
    string=r'/"([^"\\\x00-\x1F\x7F]|\\["\\nrtbf])*"/',
    true="true",
    false="false",
    null="null",
    key=lambda name: json.dumps(name, ensure_ascii=False) + ": ",
)
PYTHON = Notation(
    string=r"""/"([^"\\\x00-\x1F\x7F]|\\["'\\nrtbf])*"|'([^'\\\x00-\x1F\x7F]|\\["'\\nrtbf])*'/""",
    true="True",
    false="False",
    null="None",
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
            "STRING": notation.string,
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
        # Two rules for each parameter: the rest of the list from it on when nothing was written yet, and when there
        # was. So the grammar grows with the number of parameters, not with that of their combinations.
        rest_first, rest_later = "", ""
        for position, parameter in reversed(list(enumerate(signature.parameters))):
            first, later = f"first_{number}_{position}", f"later_{number}_{position}"
            key, value = self._notation.key(parameter.name), self.value(parameter.type)
            pair = f"{literal(key)} {value} {rest_later}"
            next_pair = f"{literal(', ' + key)} {value} {rest_later}"
            if parameter.required:
                self.add(f"{first}: {pair}", f"{later}: {next_pair}")
            else:
                self.add(f"{first}: {pair} | {rest_first}", f"{later}: {next_pair} | {rest_later}")
            rest_first, rest_later = first, later
        return rest_first

    def value(self, kind: ParameterType, nesting: int = 0) -> str:
        """The rule or terminal for a value of this type."""
        match kind.kind:
            case "string":
                return "STRING"
            case "integer":
                return "INTEGER"
            case "number":
                return "NUMBER"
            case "null":
                return literal(self._notation.null)
        name = self._values.get((kind, nesting))
        if name is None:
            name = self._values[kind, nesting] = f"value_{len(self._values)}"
            self.add(f"{name}: {self._body(kind, nesting)}")
        return name

    def _body(self, kind: ParameterType, nesting: int) -> str:
        match kind.kind:
            case "boolean":
                return f"{literal(self._notation.true)} | {literal(self._notation.false)}"
            case "union":
                return " | ".join(self.value(item, nesting) for item in kind.items)
            case "array":
                item = self.value(kind.items[0], nesting + 1)
                return f'"[]" | "[" {item} (", " {item})* "]"'
            case "object":
                item = self.value(kind.items[0], nesting + 1)
                return f'"{{}}" | "{{" STRING ": " {item} (", " STRING ": " {item})* "}}"'
            case _:
                scalars = [self.value(scalar) for scalar in _SCALARS]
                deeper = [self.value(container, nesting) for container in _CONTAINERS] if nesting < MAX_NESTING else []
                return " | ".join([*scalars, *deeper])


_SCALARS = (ParameterType("string"), ParameterType("number"), ParameterType("boolean"), ParameterType("null"))
_CONTAINERS = (ParameterType("array", (ANY,)), ParameterType("object", (ANY,)))
