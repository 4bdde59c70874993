"""The differences of two contracts as a client sees them: what breaks, what does not, where, and whose handler it is.

Operations are matched by method and path (upstream gives them no ids), schemas by name. Streams count like any other
answer. Breaking means: a client that was right with the old contract may be wrong with the new one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from codegen.diff_schemas import Comparison, Finding, Place
from codegen.documents import Json, Object, pointer
from codegen.normalise import closure, references

REQUEST, RESPONSE = "request", "response"


@dataclass(frozen=True, slots=True)
class Change:
    """`place` is a JSON pointer (into the old contract for what was removed); `operations` are those it touches."""

    breaking: bool
    kind: str
    place: str
    message: str
    operations: tuple[str, ...] = ()

    def as_json(self) -> Object:
        return asdict(self)


def compare(old: Object, new: Object) -> list[Change]:
    """All changes from `old` to `new`, breaking ones first, in the order of the documents."""
    comparison = Comparison(_schemas(old), _schemas(new))
    users = _users(old), _users(new)
    changes = [*_operations(old, new, comparison), *_components(comparison, users)]
    return sorted(dict.fromkeys(changes), key=lambda change: not change.breaking)


def render(changes: Iterable[Change]) -> Iterator[str]:
    """One line for each change."""
    for change in changes:
        touched = ", ".join(change.operations[:4])
        more = f" and {len(change.operations) - 4} more" if len(change.operations) > 4 else ""
        suffix = f"  [{touched}{more}]" if touched else ""
        yield f"{'BREAKING' if change.breaking else 'ok      '}  {change.place}: {change.message}{suffix}"


def _schemas(contract: Object) -> Object:
    schemas: Object = contract.get("components", {}).get("schemas", {})
    return schemas


def _entries(contract: Object) -> dict[tuple[str, str], tuple[str, Object]]:
    """(method, path with nameless parameters) -> (path, operation)."""
    return {
        (method, re.sub(r"\{[^}]*\}", "{}", path)): (path, entry)
        for path, item in contract.get("paths", {}).items()
        for method, entry in item.items()
        if isinstance(entry, dict)
    }


def _label(method: str, path: str, entry: Object) -> str:
    return str(entry.get("operationId") or f"{method.upper()} {path}")


def _users(contract: Object) -> dict[str, dict[str, set[str]]]:
    """Schema name -> polarity -> labels of the operations that reach it."""
    users: dict[str, dict[str, set[str]]] = {}
    schemas = _schemas(contract)
    for (method, _), (path, entry) in _entries(contract).items():
        sent = references([entry.get("requestBody", {}), entry.get("parameters", [])])
        answers = [_resolved(contract, response) for response in entry.get("responses", {}).values()]
        for polarity, names in ((REQUEST, sent), (RESPONSE, references(answers))):
            for name in closure(names, schemas):
                users.setdefault(name, {}).setdefault(polarity, set()).add(_label(method, path, entry))
    return users


def _resolved(contract: Object, node: Json) -> Json:
    ref = node.get("$ref", "") if isinstance(node, dict) else ""
    if not ref.startswith("#/components/responses/"):
        return node
    return contract["components"]["responses"][ref.rsplit("/", 1)[-1]]


def _components(
    comparison: Comparison, users: tuple[dict[str, dict[str, set[str]]], dict[str, dict[str, set[str]]]]
) -> Iterator[Change]:
    for name in [*comparison.old, *(name for name in comparison.new if name not in comparison.old)]:
        place: Place = ("components", "schemas", name)
        touched = {
            polarity: users[0].get(name, {}).get(polarity, set()) | users[1].get(name, {}).get(polarity, set())
            for polarity in (REQUEST, RESPONSE)
        }
        operations = tuple(sorted(touched[REQUEST] | touched[RESPONSE]))
        if name not in comparison.new:
            yield Change(False, "schema-removed", pointer(*place), "schema was removed", operations)
        elif name not in comparison.old:
            yield Change(False, "schema-added", pointer(*place), "schema was added", operations)
        else:
            for finding in comparison.schemas(comparison.old[name], comparison.new[name], place):
                yield _change(finding, bool(touched[REQUEST]), bool(touched[RESPONSE]), operations)


def _change(finding: Finding, sent: bool, answered: bool, operations: tuple[str, ...]) -> Change:
    breaking = (sent and finding.narrows) or (answered and finding.widens)
    if answered and finding.kind in ("property-removed", "property-renamed"):
        breaking = True
    return Change(breaking, finding.kind, finding.place, finding.message, operations)


def _operations(old: Object, new: Object, comparison: Comparison) -> Iterator[Change]:
    before, after = _entries(old), _entries(new)
    moved = {entry.get("operationId"): path for key, (path, entry) in after.items() if key not in before}
    for key, (path, entry) in before.items():
        place: Place = ("paths", path, key[0])
        label = (_label(key[0], path, entry),)
        if key in after:
            yield from _operation(old, new, comparison, entry, *after[key], key[0])
        elif entry.get("operationId") and entry["operationId"] in moved:
            target = moved[entry["operationId"]]
            yield Change(True, "operation-moved", pointer(*place), f"operation moved to {target}", label)
        else:
            yield Change(True, "operation-removed", pointer(*place), "operation was removed", label)
    for key, (path, entry) in after.items():
        if key not in before:
            label = (_label(key[0], path, entry),)
            yield Change(False, "operation-added", pointer("paths", path, key[0]), "operation was added", label)


def _operation(
    old: Object, new: Object, comparison: Comparison, before: Object, path: str, after: Object, method: str
) -> Iterator[Change]:
    place: Place = ("paths", path, method)
    label = (_label(method, path, after),)
    for key in ("operationId", "tags"):
        if before.get(key) != after.get(key):
            message = f"{key} {before.get(key)!r} became {after.get(key)!r}"
            yield Change(False, f"{key}-changed", pointer(*place, key), message, label)
    yield from _parameters(comparison, before.get("parameters", []), after.get("parameters", []), place, label)
    yield from _body(comparison, before.get("requestBody"), after.get("requestBody"), (*place, "requestBody"), label)
    answers = [{s: _resolved(c, r) for s, r in e["responses"].items()} for c, e in ((old, before), (new, after))]
    yield from _responses(comparison, answers[0], answers[1], (*place, "responses"), label)
    free = _free(old, before), _free(new, after)
    if free[0] != free[1]:
        message = "needs a key now" if free[0] else "needs no key any more"
        yield Change(free[0], "security-changed", pointer(*place, "security"), message, label)


def _free(contract: Object, entry: Object) -> bool:
    """The operation can be called without credentials."""
    schemes = entry.get("security", contract.get("security", []))
    return not schemes or {} in schemes


def _parameters(
    comparison: Comparison, old: list[Object], new: list[Object], place: Place, label: tuple[str, ...]
) -> Iterator[Change]:
    before = {parameter["name"]: parameter for parameter in old}
    after = {parameter["name"]: (i, parameter) for i, parameter in enumerate(new)}
    gone = [name for name in before if name not in after]
    come = [name for name in after if name not in before]
    for i, parameter in enumerate(old):
        name = parameter["name"]
        where: Place = (*place, "parameters", i)
        if name in gone:
            twin = next((c for c in come if {**after[c][1], "name": name} == parameter), None)
            if twin is not None:
                come.remove(twin)
                # The name of a path parameter is not on the wire.
                on_wire = parameter["in"] != "path"
                message = f"parameter {name!r} was removed; renamed to {twin!r}?"
                yield Change(on_wire, "parameter-renamed", pointer(*where), message, label)
            else:
                yield Change(True, "parameter-removed", pointer(*where), f"parameter {name!r} was removed", label)
            continue
        index, other = after[name]
        where = (*place, "parameters", index)
        if parameter["in"] != other["in"]:
            message = f"parameter {name!r} moved from {parameter['in']} to {other['in']}"
            yield Change(True, "parameter-moved", pointer(*where, "in"), message, label)
        required = bool(parameter.get("required")), bool(other.get("required"))
        if required[0] != required[1]:
            message = f"parameter {name!r} became {'required' if required[1] else 'optional'}"
            yield Change(required[1], "parameter-required", pointer(*where, "required"), message, label)
        for key in ("style", "explode", "allowReserved"):
            if parameter.get(key) != other.get(key):
                message = f"{key} of parameter {name!r}: {parameter.get(key)!r} became {other.get(key)!r}"
                yield Change(True, "parameter-style", pointer(*where, key), message, label)
        for finding in comparison.schemas(_payload(parameter), _payload(other), (*where, "schema")):
            yield _change(finding, True, False, label)
    for name in come:
        index, parameter = after[name]
        required_now = bool(parameter.get("required"))
        message = f"{'required' if required_now else 'optional'} parameter {name!r} was added"
        yield Change(required_now, "parameter-added", pointer(*place, "parameters", index), message, label)


def _payload(parameter: Object) -> Json:
    if "schema" in parameter:
        return parameter["schema"]
    contents = list(parameter.get("content", {}).values())
    return contents[0].get("schema", {}) if contents else {}


def _body(
    comparison: Comparison, old: Object | None, new: Object | None, place: Place, label: tuple[str, ...]
) -> Iterator[Change]:
    if old is None and new is None:
        return
    if old is None or new is None:
        required = bool(new and new.get("required"))
        what = "a request body was added" if old is None else "the request body was removed"
        yield Change(required or new is None, "body-changed", pointer(*place), what, label)
        return
    if bool(old.get("required")) != bool(new.get("required")):
        what = "required" if new.get("required") else "optional"
        yield Change(bool(new.get("required")), "body-required", pointer(*place), f"the body became {what}", label)
    yield from _media(comparison, old, new, place, label, REQUEST)


def _responses(
    comparison: Comparison, old: Object, new: Object, place: Place, label: tuple[str, ...]
) -> Iterator[Change]:
    for status in old:
        if status not in new:
            success = status.startswith("2")
            yield Change(success, "status-removed", pointer(*place, status), f"status {status} was removed", label)
        else:
            yield from _media(comparison, old[status], new[status], (*place, status), label, RESPONSE)
    for status in new:
        if status not in old:
            yield Change(False, "status-added", pointer(*place, status), f"status {status} was added", label)


def _media(
    comparison: Comparison, old: Object, new: Object, place: Place, label: tuple[str, ...], polarity: str
) -> Iterator[Change]:
    before, after = old.get("content", {}), new.get("content", {})
    for media in before:
        where: Place = (*place, "content", media)
        if media not in after:
            yield Change(True, "media-removed", pointer(*where), f"{media} was removed", label)
            continue
        schemas = before[media].get("schema", {}), after[media].get("schema", {})
        for finding in comparison.schemas(*schemas, (*where, "schema")):
            yield _change(finding, polarity == REQUEST, polarity == RESPONSE, label)
    for media in after:
        if media not in before:
            yield Change(False, "media-added", pointer(*place, "content", media), f"{media} was added", label)
