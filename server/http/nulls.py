"""What clients write differently and mean the same, put right before a request is validated.

A null member means that the member is not there. That holds where the schema names the member, does not require it and
has no null for it. Members of free objects (rows, metadata, tool arguments) keep their nulls; a null in place of
something required is left for the validator to refuse.

A member whose schema has `x-accepts` may have an older name of its value (`"role": "ipython"` for `"tool"`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]
_REF = "#/$defs/"


class NullRule:
    """Applies the rule by the definitions of `generated/schemas.json`."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions
        self.older_names = _older_names(definitions)

    def drop(self, name: str, value: Any) -> Any:
        """`value` of definition `name` without its null members and older names; changes it in place."""
        self._apply(self._definitions[name], value)
        return value

    def _apply(self, schema: Schema, value: Any) -> None:
        if isinstance(value, dict):
            self._apply_to_object(self._branches(schema, value), value)
        elif isinstance(value, list):
            for branch in self._branches(schema, value):
                items = branch.get("items")
                if isinstance(items, dict) and items:
                    for item in value:
                        if isinstance(item, dict | list):
                            self._apply(items, item)

    def _apply_to_object(self, branches: list[Schema], value: dict[str, Any]) -> None:
        for name in [name for name, member in value.items() if member is None]:
            naming = [branch for branch in branches if name in branch.get("properties", ())]
            if naming and not any(
                name in branch.get("required", ()) or self._nullable(branch["properties"][name]) for branch in naming
            ):
                del value[name]
        for name, member in value.items():
            if isinstance(member, str) and member in self.older_names:
                for branch in branches:
                    accepted = branch.get("properties", {}).get(name, {}).get("x-accepts", {})
                    if member in accepted:
                        value[name] = accepted[member]
                        break
            elif isinstance(member, dict | list):
                for branch in branches:
                    schema = branch.get("properties", {}).get(name, branch.get("additionalProperties"))
                    if isinstance(schema, dict) and schema:
                        self._apply(schema, member)

    def _branches(self, schema: Schema, value: Any) -> list[Schema]:
        """The object or array schemas that `value` may be meant for: none whose constants it contradicts."""
        schema = self._resolve(schema)
        found: list[Schema] = []
        for keyword in ("anyOf", "oneOf", "allOf"):
            for alternative in schema.get(keyword, ()):
                found += self._branches(alternative, value)
        if "properties" in schema or "items" in schema or isinstance(schema.get("additionalProperties"), dict):
            fits = schema.get("type") in (None, "object" if isinstance(value, dict) else "array")
            if fits and (not isinstance(value, dict) or not self._contradicts(schema, value)):
                found.append(schema)
        return found

    def _contradicts(self, schema: Schema, value: dict[str, Any]) -> bool:
        for name, member in schema.get("properties", {}).items():
            member = self._resolve(member)
            if name not in value or "const" not in member or value[name] in (None, member["const"]):
                continue
            if member.get("x-accepts", {}).get(_hashable(value[name])) != member["const"]:
                return True
        return False

    def _nullable(self, schema: Schema) -> bool:
        schema = self._resolve(schema)
        if "const" in schema:
            return schema["const"] is None
        if "enum" in schema:
            return None in schema["enum"]
        alternatives = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
        if alternatives:
            return any(self._nullable(alternative) for alternative in alternatives)
        kind = schema.get("type")
        return kind is None or kind == "null" or (isinstance(kind, list) and "null" in kind)

    def _resolve(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self._definitions[schema["$ref"].removeprefix(_REF)]
        return schema


def _older_names(schema: Any) -> frozenset[str]:
    """Every value that some `x-accepts` names."""
    if isinstance(schema, list):
        return frozenset().union(*map(_older_names, schema))
    if not isinstance(schema, Mapping):
        return frozenset()
    return frozenset(schema.get("x-accepts", ())).union(*map(_older_names, schema.values()))


def _hashable(value: Any) -> str | None:
    return value if isinstance(value, str) else None
