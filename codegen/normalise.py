"""The mechanical rewrites: what is the same everywhere in the contract and therefore code, not an overlay action.

Each rewrite says how often it applied. The counts are kept in `codegen/lock.json`; a count that moves means that the
contract has changed in a way nobody has looked at yet.
"""

from __future__ import annotations

from collections import Counter

from codegen.documents import Json, Object, objects, pointer, rewrite
from codegen.errors import ContractError

SCHEMA_PREFIX = "#/components/schemas/"
DEFINITION_PREFIX = "#/$defs/"

_SIX_WAYS: list[Object] = [{"type": name} for name in ("null", "boolean", "number", "string", "array", "object")]

# RFC 3339, except that the offset may be missing: llama-stack-client 0.1.0 sends naive timestamps. They mean UTC.
_TIMESTAMP = r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:?\d{2})?$"


def any_json(node: Json, counts: Counter[str]) -> Json:
    """`oneOf` over all six JSON types -> `{}`: the same meaning, and an integer stays an integer in Pydantic."""

    def rule(schema: Object) -> Json:
        alternatives = schema.get("oneOf")
        if isinstance(alternatives, list) and sorted(map(str, alternatives)) == sorted(map(str, _SIX_WAYS)):
            counts["any JSON oneOf -> {}"] += 1
            return {key: value for key, value in schema.items() if key != "oneOf"}
        return schema

    return rewrite(node, rule)


def any_of(node: Json, counts: Counter[str]) -> Json:
    """`oneOf` -> `anyOf`: the alternatives that remain are told apart by type or by a constant."""

    def rule(schema: Object) -> Json:
        if isinstance(schema.get("oneOf"), list):
            counts["oneOf -> anyOf"] += 1
            return {("anyOf" if key == "oneOf" else key): value for key, value in schema.items()}
        return schema

    return rewrite(node, rule)


def overlaps(schemas: Object) -> list[str]:
    """Places of a `oneOf` that one value can match twice: an integer that is a number too, a string in two ways."""
    found = []

    def scalar(schema: Json) -> set[str]:
        target = schemas.get(schema["$ref"].removeprefix(SCHEMA_PREFIX), {}) if "$ref" in schema else schema
        kind = target.get("type")
        if "const" in target or not isinstance(kind, str) or kind in ("object", "array"):
            return set()
        return {"integer", "number"} if kind == "number" else {kind}

    def walk(node: Json, place: tuple[str | int, ...]) -> None:
        if isinstance(node, dict):
            seen: set[str] = set()
            for alternative in node["oneOf"] if isinstance(node.get("oneOf"), list) else []:
                if scalar(alternative) & seen:
                    found.append(pointer(*place, "oneOf"))
                    break
                seen |= scalar(alternative)
            for key, value in node.items():
                walk(value, (*place, key))
        elif isinstance(node, list):
            for index, value in enumerate(node):
                walk(value, (*place, index))

    walk(schemas, ("components", "schemas"))
    return found


def references(node: Json) -> set[str]:
    """Names of the component schemas that `node` refers to directly."""
    found = set()
    for schema in objects(node):
        ref = schema.get("$ref")
        if isinstance(ref, str) and ref.startswith(SCHEMA_PREFIX):
            found.add(ref.removeprefix(SCHEMA_PREFIX))
    return found


def closure(names: set[str], schemas: Object) -> set[str]:
    """`names` and every component schema reachable from them."""
    reached: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        if name not in schemas:
            raise ContractError(f"{SCHEMA_PREFIX}{name} is referred to but not defined")
        reached.add(name)
        waiting |= references(schemas[name]) - reached
    return reached


def accepted(paths: Object, schemas: Object) -> set[str]:
    """Names of the schemas that clients send: reachable from a request body or a parameter."""
    sent = set()
    for item in paths.values():
        for operation in item.values():
            sent |= references(operation.get("requestBody", {})) | references(operation.get("parameters", []))
    return closure(sent, schemas)


def opened(schema: Json, counts: Counter[str]) -> Json:
    """The request side: unknown members are ignored, and timestamps may be naive.

    Only the schemas we validate and build models with; the published contract keeps `additionalProperties: false`.
    """

    def rule(part: Object) -> Json:
        part = dict(part)
        if part.get("additionalProperties") is False:
            counts["request object opened"] += 1
            del part["additionalProperties"]
        if part.get("format") == "date-time":
            counts["request timestamp may be naive"] += 1
        return part

    return rewrite(schema, rule)


def naive_timestamps(schema: Json) -> Json:
    """`format: date-time` -> a pattern that lets the offset be missing."""

    def rule(part: Object) -> Json:
        if part.get("format") != "date-time":
            return part
        return {**{key: value for key, value in part.items() if key != "format"}, "pattern": _TIMESTAMP}

    return rewrite(schema, rule)


def gate(schemas: Object, accepted_names: frozenset[str]) -> Object:
    """One JSON Schema 2020-12 document with everything under `$defs`, for validating request bodies."""

    def local(part: Object) -> Json:
        ref = part.get("$ref")
        if isinstance(ref, str):
            part = {**part, "$ref": ref.replace(SCHEMA_PREFIX, DEFINITION_PREFIX)}
        if isinstance(part.get("propertyName"), str) and isinstance(part.get("mapping"), dict):
            mapping = {tag: ref.replace(SCHEMA_PREFIX, DEFINITION_PREFIX) for tag, ref in part["mapping"].items()}
            part = {**part, "mapping": mapping}
        return part

    definitions = {
        name: rewrite(naive_timestamps(schema) if name in accepted_names else schema, local)
        for name, schema in schemas.items()
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions}
