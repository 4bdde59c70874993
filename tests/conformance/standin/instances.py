"""The smallest JSON that a JSON Schema accepts."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from tests.conformance.standin.wire import Refused


def instance(schema: dict[str, Any]) -> Any:
    """An instance of a schema.

    Raises:
        Refused: 400, it is no JSON Schema, or one that this does not understand.
    """
    try:
        value = _smallest(schema, schema, 0)
        valid = jsonschema_rs.validator_for(schema).is_valid(value)
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):
        valid = False
    except (AttributeError, IndexError, KeyError, TypeError):
        valid = False
    if not valid:
        raise Refused(400, "response_format: no answer can be made for this schema")
    return value


def _smallest(schema: Any, root: dict[str, Any], depth: int) -> Any:
    if depth > 30:
        raise ValueError("the schema contains itself")
    if schema is True or not schema:
        return {}
    if "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#").strip("/").split("/"):
            target = target[step] if step else target
        return _smallest(target, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return _smallest(schema[keyword][0], root, depth + 1)
    if "allOf" in schema:
        whole = {name: value for name, value in schema.items() if name != "allOf"}
        for part in schema["allOf"]:
            properties = whole.get("properties", {}) | part.get("properties", {})
            required = [*whole.get("required", []), *part.get("required", [])]
            whole = whole | part | {"properties": properties, "required": required}
        return _smallest(whole, root, depth + 1)
    kind = schema.get("type", "object")
    return _of_kind(kind if isinstance(kind, str) else kind[0], schema, root, depth)


def _of_kind(kind: str, schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    if kind == "object":
        properties = schema.get("properties", {})
        names = dict.fromkeys(schema.get("required", []))
        return {name: _smallest(properties.get(name, True), root, depth + 1) for name in names}
    if kind == "array":
        return [_smallest(schema.get("items", True), root, depth + 1)] * schema.get("minItems", 0)
    if kind == "string":
        return "a" * schema.get("minLength", 0)
    if kind in ("integer", "number"):
        if "exclusiveMinimum" in schema:
            return schema["exclusiveMinimum"] + 1
        return schema.get("minimum", min(0, schema.get("maximum", 0)))
    return False if kind == "boolean" else None
