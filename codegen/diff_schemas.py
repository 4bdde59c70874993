"""Comparing two JSON schemas as a client sees them.

A narrower schema breaks those who send (a request that was right is refused); a wider one breaks those who read (an
answer that never came before now does). So each finding carries both signs, and the polarity of the place decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from codegen.documents import Json, Object, pointer

Place = tuple[str | int, ...]

_MINIMA = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MAXIMA = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_TEXTUAL = ("pattern", "format", "contentEncoding", "contentMediaType", "uniqueItems", "multipleOf")
_UNIONS = ("oneOf", "anyOf", "allOf")
_SILENT = frozenset({"title", "description", "example", "examples", "$comment", "deprecated"})
_HANDLED = frozenset(
    {"$ref", "type", "enum", "const", "properties", "required", "additionalProperties", "items", "discriminator"}
    | {"default", "nullable"}
).union(_MINIMA, _MAXIMA, _TEXTUAL, _UNIONS)
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Finding:
    """`narrows`: something valid before is not valid now. `widens`: something valid now was not valid before."""

    kind: str
    place: str
    message: str
    narrows: bool
    widens: bool


@dataclass(slots=True)
class Comparison:
    """Two sets of component schemas and what has been compared by structure already (schemas may be recursive)."""

    old: Object
    new: Object
    pairs: set[tuple[str, str]] = field(default_factory=set)

    def schemas(self, old: Json, new: Json, place: Place) -> Iterator[Finding]:
        """What changed from `old` to `new`. A reference to the same name is no change: components are compared once."""
        if old == new:
            return
        if isinstance(old, bool) or isinstance(new, bool):
            yield _finding("schema-changed", place, f"{old!r} became {new!r}", narrows=new is False, widens=new is True)
            return
        if "$ref" in old or "$ref" in new:
            yield from self._references(old, new, place)
            return
        yield from _types(old, new, place)
        yield from _values(old, new, place)
        yield from _limits(old, new, place)
        yield from self._members(old, new, place)
        yield from self._nested(old, new, place)
        for union in _UNIONS:
            yield from self._union(old.get(union), new.get(union), (*place, union))
        yield from _rest(old, new, place)

    def _references(self, old: Object, new: Object, place: Place) -> Iterator[Finding]:
        left, right = _name(old, self.old), _name(new, self.new)
        if left == right:
            yield from _rest(old, new, place)
            return
        if (left or "", right or "") in self.pairs:
            return
        self.pairs.add((left or "", right or ""))
        found = list(self.schemas(self.old[left] if left else old, self.new[right] if right else new, place))
        yield _finding(
            "reference-changed",
            place,
            f"{left or 'an inline schema'} became {right or 'an inline schema'}",
            narrows=any(finding.narrows for finding in found),
            widens=any(finding.widens for finding in found),
        )
        yield from found

    def _members(self, old: Object, new: Object, place: Place) -> Iterator[Finding]:
        before, after = old.get("properties", {}), new.get("properties", {})
        must_before, must_after = set(old.get("required", [])), set(new.get("required", []))
        gone = [name for name in before if name not in after]
        come = [name for name in after if name not in before]
        for name in gone:
            where = (*place, "properties", name)
            twin = next((other for other in come if after[other] == before[name]), None)
            message, kind = f"{name!r} was removed", "property-removed"
            if twin is not None:
                come.remove(twin)
                message, kind = f"{message}; renamed to {twin!r}?", "property-renamed"
            yield _finding(kind, where, message, narrows=True, widens=name in must_before)
        for name in come:
            required = name in must_after
            # A new member in an answer is no surprise: readers ignore what they do not know.
            yield _finding(
                "property-added",
                (*place, "properties", name),
                f"{'required' if required else 'optional'} {name!r} was added",
                narrows=required,
                widens=False,
            )
        for name in before:
            if name not in after:
                continue
            where = (*place, "properties", name)
            if name in must_after - must_before:
                yield _finding("property-required", where, f"{name!r} became required", narrows=True, widens=False)
            if name in must_before - must_after:
                yield _finding("property-optional", where, f"{name!r} became optional", narrows=False, widens=True)
            yield from self.schemas(before[name], after[name], where)

    def _nested(self, old: Object, new: Object, place: Place) -> Iterator[Finding]:
        if "items" in old or "items" in new:
            yield from self.schemas(old.get("items", {}), new.get("items", {}), (*place, "items"))
        before, after = old.get("additionalProperties", True), new.get("additionalProperties", True)
        before = {} if before is True else before
        after = {} if after is True else after
        where = (*place, "additionalProperties")
        if before is False and after is not False:
            yield _finding("object-opened", where, "unknown members are allowed now", narrows=False, widens=False)
        elif after is False and before is not False:
            yield _finding("object-closed", where, "unknown members are refused now", narrows=True, widens=False)
        elif before is not False:
            yield from self.schemas(before, after, where)
        left, right = old.get("discriminator", {}), new.get("discriminator", {})
        if left and right and left.get("propertyName") != right.get("propertyName"):
            yield _finding(
                "discriminator-changed",
                (*place, "discriminator"),
                f"{left.get('propertyName')!r} became {right.get('propertyName')!r}",
                narrows=True,
                widens=True,
            )

    def _union(self, old: Json, new: Json, place: Place) -> Iterator[Finding]:
        if old is None and new is None:
            return
        if old is None or new is None:
            what = "became a choice" if old is None else "is no choice any more"
            yield _finding("union-changed", place, what, narrows=True, widens=True)
            return
        left, right = self._keyed(old, self.old), self._keyed(new, self.new)
        for key, (index, schema) in left.items():
            if key in right:
                yield from self.schemas(schema, right[key][1], (*place, right[key][0]))
            else:
                yield _finding("variant-removed", (*place, index), f"{key} was removed", narrows=True, widens=False)
        for key, (index, _) in right.items():
            if key not in left:
                yield _finding("variant-added", (*place, index), f"{key} was added", narrows=False, widens=True)

    def _keyed(self, variants: list[Json], components: Object) -> dict[str, tuple[int, Json]]:
        """Variants by what tells them apart: their name, their constant, their type, else their place."""
        keyed: dict[str, tuple[int, Json]] = {}
        for index, schema in enumerate(variants):
            name = _name(schema, components)
            constants = [str(p["const"]) for p in schema.get("properties", {}).values() if "const" in p]
            key = name or "/".join(constants) or (f"type {schema['type']}" if "type" in schema else f"variant {index}")
            keyed[key if key not in keyed else f"{key} ({index})"] = (index, schema)
        return keyed


def _types(old: Object, new: Object, place: Place) -> Iterator[Finding]:
    before, after = _type_set(old), _type_set(new)
    if before == after:
        return
    narrows = bool(before - after) if after else False
    widens = bool(after - before) if before else False
    if not before or not after:
        narrows, widens = bool(after), bool(before)
    message = f"type {_types_text(before)} became {_types_text(after)}"
    yield _finding("type-changed", (*place, "type"), message, narrows=narrows, widens=widens)


def _type_set(schema: Object) -> set[str]:
    declared = schema.get("type", [])
    names = {declared} if isinstance(declared, str) else set(declared)
    # Every integer is a number: with this, integer -> number only widens and number -> integer only narrows.
    if "number" in names:
        names |= {"integer"}
    return names | ({"null"} if schema.get("nullable") else set())


def _types_text(names: set[str]) -> str:
    return " or ".join(sorted(names - ({"integer"} if "number" in names else set()))) or "anything"


def _values(old: Object, new: Object, place: Place) -> Iterator[Finding]:
    before, after = _allowed(old), _allowed(new)
    if before == after:
        return
    keyword = "const" if "const" in old or "const" in new else "enum"
    if before is None or after is None:
        what = f"only {after} are allowed now" if before is None else "any value is allowed now"
        yield _finding("values-changed", (*place, keyword), what, narrows=before is None, widens=after is None)
        return
    for value in before:
        if value not in after:
            message = f"{value!r} was removed"
            yield _finding("enum-value-removed", (*place, keyword), message, narrows=True, widens=False)
    for value in after:
        if value not in before:
            yield _finding("enum-value-added", (*place, keyword), f"{value!r} was added", narrows=False, widens=True)


def _allowed(schema: Object) -> list[Json] | None:
    if "const" in schema:
        return [schema["const"]]
    allowed: list[Json] | None = schema.get("enum")
    return allowed


def _limits(old: Object, new: Object, place: Place) -> Iterator[Finding]:
    for keyword in (*_MINIMA, *_MAXIMA, *_TEXTUAL):
        before, after = old.get(keyword), new.get(keyword)
        if before == after:
            continue
        if before is None or after is None:
            narrows, widens = before is None, after is None
        elif keyword in _TEXTUAL:
            narrows = widens = True
        else:
            narrows = (after > before) if keyword in _MINIMA else (after < before)
            widens = not narrows
        message = f"{keyword} {_shown(before)} became {_shown(after)}"
        yield _finding("limit-changed", (*place, keyword), message, narrows=narrows, widens=widens)


def _rest(old: Object, new: Object, place: Place) -> Iterator[Finding]:
    if old.get("default", _MISSING) != new.get("default", _MISSING):
        message = f"default {_shown(old.get('default'))} became {_shown(new.get('default'))}"
        yield _finding("default-changed", (*place, "default"), message, narrows=False, widens=False)
    for keyword in sorted((set(old) | set(new)) - _HANDLED - _SILENT):
        if old.get(keyword, _MISSING) != new.get(keyword, _MISSING):
            ours = keyword.startswith("x-")
            message = f"{keyword} changed"
            yield _finding("keyword-changed", (*place, keyword), message, narrows=not ours, widens=not ours)


def _name(schema: Json, components: Object) -> str | None:
    ref = schema.get("$ref") if isinstance(schema, dict) else None
    if not isinstance(ref, str):
        return None
    name = ref.rsplit("/", 1)[-1]
    return name if name in components else None


def _shown(value: Json) -> str:
    return "nothing" if value is None else repr(value)


def _finding(kind: str, place: Place, message: str, *, narrows: bool, widens: bool) -> Finding:
    return Finding(kind, pointer(*place), message, narrows, widens)
