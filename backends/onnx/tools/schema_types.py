"""The types of a tool's arguments, read from a JSON Schema that a stranger wrote.

What a grammar can hold a model to is kept: types, constants, members, items, alternatives, local references, bounds of
integers, lengths, some formats. All else (patterns, bounds of other numbers, conditions ...) leaves a value freer than
the schema does, never less free, with one exception: members that a schema neither names nor mentions are not written.
Who runs the call validates it against the whole schema.
Source: https://json-schema.org/draft/2020-12/json-schema-validation
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from backends.onnx.tools.parameter_types import ANY, Kind, Member, ParameterType, union

MAX_DEPTH = 8
"""Of schemas inside each other, references included; what is deeper is of its `type` alone."""
MAX_SCHEMAS = 500
"""Schemas within one that are read, each reference anew; what comes after them is of its `type` alone."""
MAX_CONSTANTS = 500
MAX_CHARACTERS = 200
"""A string's bound above this is left to the validation, since grammars grow with it."""
MAX_ITEMS = 64
MAX_INTEGER = 10**15
FORMATS = frozenset({"date", "time", "date-time", "uuid", "email", "ipv4"})
_SCALARS: Mapping[str, Kind] = {
    "string": "string", "integer": "integer", "number": "number", "boolean": "boolean", "null": "null",
}  # fmt: skip
_OBJECT = ParameterType("object", (ANY,))
_ARRAY = ParameterType("array", (ANY,))
_BARE: Mapping[str, ParameterType] = {
    **{name: ParameterType(kind) for name, kind in _SCALARS.items()}, "object": _OBJECT, "array": _ARRAY,
}  # fmt: skip


class SchemaTypes:
    """Types of one schema, whose references are looked up in it."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._read = 0

    def properties(self) -> dict[str, ParameterType]:
        """The types of the arguments by their names."""
        properties = self._root.get("properties")
        return {name: self._type(about, 1) for name, about in _object(properties).items()}

    def _type(self, schema: Any, depth: int) -> ParameterType:
        self._read += 1
        found = self._resolved(schema)
        kind = found.get("type")
        if depth > MAX_DEPTH or self._read > MAX_SCHEMAS:
            return _BARE.get(kind, ANY) if isinstance(kind, str) else ANY
        for keyword in ("anyOf", "oneOf"):
            if alternatives := _list(found.get(keyword)):
                rest = {name: value for name, value in found.items() if name != keyword}
                return union([self._type(_merged(rest, self._resolved(each)), depth + 1) for each in alternatives])
        if "const" in found or "enum" in found:
            constants = _constants([found["const"]] if "const" in found else found["enum"])
            if constants:
                return ParameterType("enum", constants=constants)
        if isinstance(kind, list) and kind:
            return union([self._type({**found, "type": each}, depth + 1) for each in kind])
        if kind is None:
            kind = "object" if "properties" in found else "array" if "items" in found else None
        match kind:
            case "object":
                return self._members(found, depth)
            case "array":
                items = found.get("items")
                item = self._type(items, depth + 1) if isinstance(items, dict) else ANY
                least, most = _range(found.get("minItems"), found.get("maxItems"), MAX_ITEMS)
                return ParameterType("array", (item,), least=least, most=most)
            case "string":
                form = found.get("format")
                if isinstance(form, str) and form in FORMATS:
                    return ParameterType("string", format=form)
                least, most = _range(found.get("minLength"), found.get("maxLength"), MAX_CHARACTERS)
                return ParameterType("string", least=least, most=most)
            case "integer":
                return _integer(found)
        return _BARE.get(kind, ANY) if isinstance(kind, str) else ANY

    def _members(self, schema: Mapping[str, Any], depth: int) -> ParameterType:
        named, others = _object(schema.get("properties")), schema.get("additionalProperties")
        further = self._type(others, depth + 1) if isinstance(others, dict) else ANY
        if not named:
            return ParameterType("record") if others is False else ParameterType("object", (further,))
        required = _list(schema.get("required"))
        named = {**named, **{name: {} for name in required if isinstance(name, str) and name not in named}}
        members = tuple(Member(name, self._type(about, depth + 1), name in required) for name, about in named.items())
        return ParameterType("record", (further,) if others is True or isinstance(others, dict) else (), members)

    def _resolved(self, schema: Any) -> dict[str, Any]:
        """The schema with what its `$ref` and `allOf` stand for in it; {} for one that is none."""
        found = dict(_object(schema))
        for _ in range(MAX_DEPTH):  # a reference may lead to another, or to itself
            if isinstance(reference := found.pop("$ref", None), str):
                found = _merged(self._at(reference), found)
            elif parts := _list(found.pop("allOf", None)):
                for part in parts[:MAX_SCHEMAS]:
                    found = _merged(found, _object(part))
            else:
                return found
        return {}

    def _at(self, reference: str) -> Mapping[str, Any]:
        """What a reference within this schema names; {} for any other."""
        found: Any = self._root
        head, *steps = reference.split("/")
        for step in steps:
            found = _object(found).get(step.replace("~1", "/").replace("~0", "~"))
        return _object(found) if head == "#" else {}


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """What is of both schemas: of a keyword that both have, the second's counts, and members of both are needed."""
    properties = {**_object(first.get("properties")), **_object(second.get("properties"))}
    required = [*_list(first.get("required")), *_list(second.get("required"))]
    merged = {**first, **second}
    if properties:
        merged["properties"] = properties
    if required:
        merged["required"] = required
    if "allOf" in first and "allOf" in second:
        merged["allOf"] = [*_list(first["allOf"]), *_list(second["allOf"])]
    return merged


def _constants(values: Any) -> tuple[str, ...]:
    """The constants as JSON; nothing for too many."""
    values = _list(values)
    return tuple(json.dumps(value, ensure_ascii=False) for value in values) if len(values) <= MAX_CONSTANTS else ()


def _integer(schema: Mapping[str, Any]) -> ParameterType:
    """Of an integer with a bound the other is set too: digits must end."""
    lowest = [math.ceil(n) for n in _number(schema.get("minimum"))]
    lowest += [math.floor(n) + 1 for n in _number(schema.get("exclusiveMinimum"))]
    highest = [math.floor(n) for n in _number(schema.get("maximum"))]
    highest += [math.ceil(n) - 1 for n in _number(schema.get("exclusiveMaximum"))]
    least, most = max(lowest, default=-MAX_INTEGER), min(highest, default=MAX_INTEGER)
    bounded = bool(lowest or highest) and least <= most
    return ParameterType("integer", least=least, most=most) if bounded else ParameterType("integer")


def _number(value: Any) -> list[int | float]:
    """The number, if it is one that bounds anything."""
    bounds = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER
    return [value] if bounds else []


def _range(least: Any, most: Any, highest: int) -> tuple[int | None, int | None]:
    """Bounds of a length; None for one that bounds nothing or is left to the validation."""
    low, high = (int(n[0]) if (n := _number(value)) and 0 <= n[0] <= highest else None for value in (least, most))
    low = low or None
    return (None, None) if high is not None and high < (low or 0) else (low, high)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
