"""Calls that are a JSON object with a name and arguments: what Llama 3.1's JSON and Hermes' tags have in common."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from backends.onnx.tools.grammar import Grammar, literal
from backends.onnx.tools.signatures import Signature
from backends.onnx.tools.stream import plain_arguments


def read_object(raw: str, names: Collection[str]) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of a call of one of `names`. The arguments may be called `parameters` or `arguments`, and both
    may be members of `function`, as in OpenAI's API."""
    value = read_json(raw)
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or value["name"] not in names:
        return None
    arguments = plain_arguments(value.get("parameters", value.get("arguments")))
    return None if arguments is None else (value["name"], arguments)


def read_json(raw: str) -> Any:
    """The value of a JSON text; None if it is none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def write_object(name: str, arguments: Mapping[str, Any], key: str, **before: str) -> str:
    """A call in JSON. key: what the arguments are called. before: members that come first."""
    return write_json({**before, "name": name, key: arguments})


def write_json(value: Any) -> str:
    """`value` on one line, as templates write it and grammars here expect it."""
    return json.dumps(value, ensure_ascii=False)


def object_rest(grammar: Grammar, signatures: Sequence[Signature], key: str) -> str:
    """The rule for a call from behind `"name"` on, and with it the rules of all tools."""
    calls = []
    for number, signature in enumerate(signatures):
        head = f": {json.dumps(signature.name, ensure_ascii=False)}, {json.dumps(key)}: {{"
        calls.append(f"{literal(head)} {grammar.arguments(signature, number)} {literal('}')}")
    grammar.add("rest: " + " | ".join(calls))
    return "rest"
