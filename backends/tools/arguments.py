"""Arguments of a call against the parameters of a tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backends.errors import BadRequest
from backends.ports import JsonObject

_NOUNS = {
    "string": "a string", "integer": "an integer", "number": "a number", "boolean": "a boolean", "array": "a list",
    "object": "an object",
}  # fmt: skip
_ALIASES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object"}


def checked(
    arguments: Mapping[str, Any],
    parameters: Sequence[JsonObject],
    *,
    below: Mapping[str, Any],
    tool: str,
    where: str,
) -> JsonObject:
    """The arguments as the tool takes them: over those `below`, with defaults, and with numbers that came as texts.

    parameters: as registered, `{name, parameter_type, required, default}`. Names that the tool does not know are
    refused, unless it names none at all: then it may take anything. below: the operator's, which are not checked.

    Raises:
        BadRequest: one is missing, unknown, or of another type.
    """
    if not parameters:
        return {**below, **arguments}
    known = {str(parameter["name"]): parameter for parameter in parameters}
    for name in arguments:
        if name not in known:
            raise BadRequest(
                f"tool {tool!r} has no argument {name!r}; it has {', '.join(known)}", where=f"{where}/{name}"
            )
    taken: JsonObject = dict(below)
    for name, parameter in known.items():
        if arguments.get(name) is None:
            if name in below:
                continue
            if parameter.get("default") is not None:
                taken[name] = parameter["default"]
            elif parameter.get("required"):
                raise BadRequest(f"tool {tool!r} needs the argument {name!r}", where=f"{where}/{name}")
            continue
        taken[name] = _of_type(arguments[name], str(parameter.get("parameter_type", "")), name, f"{where}/{name}")
    return taken


def _of_type(value: Any, kind: str, name: str, where: str) -> Any:
    kind = _ALIASES.get(kind, kind)
    if kind not in _NOUNS or _is(value, kind):
        return value
    if isinstance(value, str) and kind in ("integer", "number", "boolean"):
        text = value.strip()
        if kind == "boolean" and text.casefold() in ("true", "false"):
            return text.casefold() == "true"
        try:
            return int(text) if kind == "integer" else float(text)
        except ValueError:
            pass
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    raise BadRequest(f"the argument {name!r} must be {_NOUNS[kind]}", where=where)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    types: dict[str, Any] = {
        "string": str, "integer": int, "number": (int, float), "array": list, "object": dict, "boolean": bool,
    }  # fmt: skip
    return isinstance(value, types[kind])
