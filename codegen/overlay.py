"""A strict applier for OpenAPI Overlay 1.0 documents (https://spec.openapis.org/overlay/v1.0.0).

The standard lets an action match nothing. Here that is an error, because after a change of the contract it means that
a decision about the contract has silently stopped to apply. For the same reason an action that changes nothing (the
contract has been corrected upstream) and a merge that would lay one array over another are errors too.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import jsonpath_rfc9535 as jsonpath

from codegen import documents
from codegen.documents import Json, Object
from codegen.errors import OverlayError


@dataclass(frozen=True, slots=True)
class Action:
    """One action of an overlay; `number` counts from 1 in its file."""

    file: str
    number: int
    target: str
    update: Json
    remove: bool

    def __str__(self) -> str:
        return f"{self.file}, action {self.number}: target {self.target}"


def load(path: Path) -> list[Action]:
    """The actions of an overlay file, checked for shape."""
    document = documents.read(path)
    if document.get("overlay") not in ("1.0.0", "1.0.1"):
        raise OverlayError(f"{path.name}: `overlay` must be 1.0.0, found {document.get('overlay')!r}")
    actions = []
    for number, entry in enumerate(document.get("actions", []), start=1):
        unknown = set(entry) - {"target", "description", "update", "remove"}
        where = f"{path.name}, action {number}"
        if unknown or "target" not in entry:
            raise OverlayError(f"{where}: needs `target`, `update` or `remove`; unknown: {sorted(unknown)}")
        if ("update" in entry) == bool(entry.get("remove")):
            raise OverlayError(f"{where}: exactly one of `update` and `remove: true`")
        actions.append(Action(path.name, number, entry["target"], entry.get("update"), bool(entry.get("remove"))))
    return actions


def apply(document: Object, actions: list[Action]) -> Object:
    """A copy of `document` with the actions applied in order.

    Raises:
        OverlayError: names every action that matched nothing, changed nothing or could not be merged.
    """
    result = copy.deepcopy(document)
    problems = []
    for action in actions:
        try:
            _apply_one(result, action)
        except OverlayError as problem:
            problems.append(str(problem))
    if problems:
        raise OverlayError("\n".join(problems))
    return result


def _apply_one(document: Object, action: Action) -> None:
    try:
        nodes = list(jsonpath.find(action.target, document))
    except jsonpath.JSONPathError as error:
        raise OverlayError(f"{action}: not a JSONPath (RFC 9535): {error}") from error
    if not nodes:
        raise OverlayError(f"{action}: matches nothing in the contract; adapt the action or delete it")
    if action.remove:
        # Last first, so that removing an array element does not move the ones still to be removed.
        for node in reversed(nodes):
            if not node.location:
                raise OverlayError(f"{action}: the root cannot be removed")
            parent = _at(document, node.location[:-1])
            del parent[node.location[-1]]
        return
    changed = False
    for node in nodes:
        target = _at(document, node.location)
        if isinstance(target, list):
            target.append(copy.deepcopy(action.update))
            changed = True
        elif isinstance(target, dict) and isinstance(action.update, dict):
            changed |= _merge(target, action.update, action)
        else:
            raise OverlayError(f"{action}: only objects and arrays can be updated, found {target!r}")
    if not changed:
        raise OverlayError(f"{action}: changes nothing; the contract says so by itself, delete the action")


def _at(document: Json, location: tuple[str | int, ...]) -> Json:
    for part in location:
        document = document[part]
    return document


def _merge(target: Object, update: Object, action: Action) -> bool:
    changed = False
    for key, value in update.items():
        present = target.get(key)
        if isinstance(present, dict) and isinstance(value, dict):
            changed |= _merge(present, value, action)
        elif isinstance(present, list) and isinstance(value, list):
            raise OverlayError(f"{action}: {key!r} is an array already; target it, or remove it first")
        elif key not in target or present != value or type(present) is not type(value):
            target[key] = copy.deepcopy(value)
            changed = True
    return changed
