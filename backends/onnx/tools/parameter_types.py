"""The types of tool parameters, read from the words that callers use: of JSON Schema, of Python, or a mix of both.

`schema_types.py` reads them from whole JSON Schemas.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from backends.errors import Unsupported

Kind = Literal["any", "string", "integer", "number", "boolean", "null", "array", "object", "union", "enum", "record"]

MAX_NESTING = 4
"""Of lists and objects inside each other, declared or in a value of any type; grammars grow with it."""

_WORDS: dict[str, Kind] = {
    "string": "string", "str": "string", "text": "string",
    "integer": "integer", "int": "integer", "long": "integer",
    "number": "number", "float": "number", "double": "number",
    "boolean": "boolean", "bool": "boolean",
    "null": "null", "none": "null", "nonetype": "null",
    "array": "array", "list": "array", "tuple": "array", "set": "array", "sequence": "array", "iterable": "array",
    "object": "object", "dict": "object", "map": "object", "mapping": "object",
}  # fmt: skip
_GENERIC = re.compile(r"([\w.]+)\s*(?:\[(.*)\]|<(.*)>)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a record."""

    name: str
    type: ParameterType
    required: bool


@dataclass(frozen=True, slots=True)
class ParameterType:
    """The type of a value.

    items: of an array or an object, the one type of its values; of a union, its members; of a record, the type of
    members that it does not name, nothing if it has none. constants: of an enum, as JSON. least, most: characters of a
    string, items of an array, or bounds of an integer; None where there is none. format: JSON Schema's, of a string.
    """

    kind: Kind
    items: tuple[ParameterType, ...] = ()
    members: tuple[Member, ...] = ()
    constants: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    format: str = ""

    def json_schema(self) -> dict[str, Any]:
        """The type as a JSON Schema; `{}` takes any value."""
        return self._unbounded() | self._bounds()

    def _bounds(self) -> dict[str, Any]:
        least, most = _BOUNDS.get(self.kind, ("", ""))
        bounds = {least: self.least, most: self.most, "format": self.format or None}
        return {name: value for name, value in bounds.items() if value is not None}

    def _unbounded(self) -> dict[str, Any]:
        match self.kind:
            case "any":
                return {}
            case "union":
                return {"anyOf": [item.json_schema() for item in self.items]}
            case "array" if self.items[0].kind != "any":
                return {"type": "array", "items": self.items[0].json_schema()}
            case "object" if self.items[0].kind != "any":
                return {"type": "object", "additionalProperties": self.items[0].json_schema()}
            case "enum":
                return {"enum": [json.loads(constant) for constant in self.constants]}
            case "record":
                return {
                    "type": "object",
                    "properties": {member.name: member.type.json_schema() for member in self.members},
                    "required": [member.name for member in self.members if member.required],
                    "additionalProperties": self.items[0].json_schema() if self.items else False,
                }
            case kind:
                return {"type": kind}

    def __str__(self) -> str:
        match self.kind:
            case "union":
                return " | ".join(map(str, self.items))
            case "array" | "object" if self.items[0].kind != "any":
                return f"{self.kind}[{self.items[0]}]"
            case "enum":
                return " | ".join(self.constants)
            case "record":
                named = [f"{member.name}{'' if member.required else '?'}: {member.type}" for member in self.members]
                return f"{{{', '.join([*named, *(['...'] if self.items else [])])}}}"
            case kind:
                return kind


ANY = ParameterType("any")
_BOUNDS: dict[Kind, tuple[str, str]] = {
    "string": ("minLength", "maxLength"), "array": ("minItems", "maxItems"), "integer": ("minimum", "maximum"),
}  # fmt: skip


def read_type(text: str, where: str, nesting: int = 0) -> ParameterType:
    """The type that `text` names, such as `integer`, `list[str]`, `Optional[float]` or `dict[str, int] | None`. A word
    that says nothing to us takes any JSON value.

    Raises:
        Unsupported: deeper nested than MAX_NESTING; `where` is passed on.
    """
    if nesting > MAX_NESTING:
        raise Unsupported(f"a parameter type may be nested {MAX_NESTING} deep; use `object` or `list`", where=where)
    text = text.strip()
    alternatives = _split(text, "|")
    if len(alternatives) > 1:
        return union([read_type(alternative, where, nesting) for alternative in alternatives])
    if text.endswith("[]"):
        return ParameterType("array", (read_type(text[:-2], where, nesting + 1),))
    generic = _GENERIC.fullmatch(text)
    word = (generic[1] if generic else text).rpartition(".")[2].casefold()
    arguments = _split(generic[2] or generic[3] or "", ",") if generic else []
    if word in ("optional", "union") and arguments:
        members = [read_type(argument, where, nesting + 1) for argument in arguments]
        return union([*members, ParameterType("null")] if word == "optional" else members)
    kind = _WORDS.get(word, "any")
    if kind == "array":
        alike = len(arguments) == 1 or (len(arguments) == 2 and arguments[1].strip() == "...")
        return ParameterType(kind, (read_type(arguments[0], where, nesting + 1) if alike else ANY,))
    if kind == "object":
        return ParameterType(kind, (read_type(arguments[1], where, nesting + 1) if len(arguments) == 2 else ANY,))
    return ParameterType(kind)


def union(members: list[ParameterType]) -> ParameterType:
    """The type of what is of any of these types."""
    flat = dict.fromkeys(item for m in members for item in (m.items if m.kind == "union" else (m,)))
    if ANY in flat:
        return ANY
    return next(iter(flat)) if len(flat) == 1 else ParameterType("union", tuple(flat))


def _split(text: str, separator: str) -> list[str]:
    """The parts of `text` between the separators that are in no brackets."""
    parts, depth, begin = [], 0, 0
    for at, character in enumerate(text):
        if character in "[<({":
            depth += 1
        elif character in "]>)}":
            depth -= 1
        elif character == separator and depth == 0:
            parts.append(text[begin:at])
            begin = at + 1
    return [*parts, text[begin:]]
