"""The gate: what of a request's JSON reaches a handler, as the generated model.

The JSON Schema decides what is accepted (jsonschema-rs on `generated/schemas.json`, 2 us for a chat body), Pydantic
builds the model and, where it refuses the same thing, gives the better explanation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from itertools import islice, takewhile
from typing import Any, TypeVar

import jsonschema_rs
from pydantic import BaseModel, ValidationError

from backends.errors import BadRequest
from generated.operations import OPERATIONS
from server.http.contract import read_generated_json
from server.http.nulls import NullRule

ModelT = TypeVar("ModelT", bound=BaseModel)
_INT64 = {"minimum": -(2**63), "maximum": 2**63 - 1}
_SHOWN_ERRORS = 3
_EXPLAINED_ITEMS = 20
_SHOWN_CHARACTERS = 300


class Gate:
    """Validators of every model that a request may hold, built once.

    schemas: `generated/schemas.json`. Integers without a range get that of 64 bits, so that none overflows later.
    """

    def __init__(self, schemas: Mapping[str, Any], models: Iterable[type[BaseModel]]) -> None:
        definitions = _bounded(schemas["$defs"])
        self._nulls = NullRule(definitions)
        self._words = (b"null", *(name.encode() for name in self._nulls.older_names))
        self._validators = {
            model: jsonschema_rs.validator_for(
                {"$schema": schemas["$schema"], "$ref": f"#/$defs/{model.__name__}", "$defs": definitions},
                mask="the value",
            )
            for model in models
        }

    def may_differ(self, text: bytes) -> bool:
        """Whether a JSON text may hold what `check` puts right first: a null or an older name of a value."""
        return any(word in text for word in self._words)

    def check(self, model: type[ModelT], value: Any, *, may_differ: bool = True) -> ModelT:
        """The model of `value`, which it may change in place.

        may_differ: False where the text has nothing to put right, which saves the walk.

        Raises:
            BadRequest: with JSON pointers to what is wrong.
        """
        if may_differ:
            self._nulls.drop(model.__name__, value)
        try:
            self._validators[model].validate(value)  # stops at the first fault, so a million of them cost no more
        except jsonschema_rs.ValidationError as error:
            raise _explain(model, value, list(error.instance_path), str(error.message)) from None
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise _bad_request(_faults(error, value)) from None


@cache
def contract_gate() -> Gate:
    """The gate of the contract this server was generated from."""
    models = {operation.body_model for operation in OPERATIONS.values() if operation.body_model is not None}
    models |= {
        parameter.model
        for operation in OPERATIONS.values()
        for parameter in operation.parameters
        if parameter.model is not None
    }
    return Gate(read_generated_json("schemas.json"), models)


def pointer(parts: Iterable[str | int]) -> str:
    """JSON pointer (RFC 6901); the whole document is `/`, which reads better than nothing."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts) or "/"


def _bounded(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_bounded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    bounded = {name: _bounded(member) for name, member in schema.items()}
    return {**_INT64, **bounded} if bounded.get("type") == "integer" else bounded


def _explain(model: type[BaseModel], value: Any, place: list[str | int], message: str) -> BadRequest:
    """The refusal of `value`, which the schema finds wrong at `place`; in Pydantic's words where it has any."""
    reduced, here = _reduced(value, place)
    try:
        model.model_validate(reduced)
    except ValidationError as error:
        return _bad_request([(_restored(found, here, place), text) for found, text in _faults(error, reduced)])
    return _bad_request([(place, message)])


def _faults(error: ValidationError, value: Any) -> list[tuple[list[str | int], str]]:
    """Places and messages, of those alternatives of a union that got furthest: they are the ones that were meant."""
    found: dict[str, tuple[list[str | int], list[str]]] = {}
    for entry in error.errors(include_url=False, include_context=False, include_input=False):
        place = _place(entry["loc"], value)
        message = entry["msg"][0].lower() + entry["msg"][1:]
        messages = found.setdefault(pointer(place), (place, []))[1]
        if message not in messages:
            messages.append(message)
    passed_by = {pointer(place[:end]) for place, _ in found.values() for end in range(len(place))}
    return [(place, ", or ".join(messages)) for where, (place, messages) in found.items() if where not in passed_by]


def _reduced(value: Any, place: list[str | int]) -> tuple[Any, list[str | int]]:
    """`value` with what is at `place` and little else, so that explaining one fault does not list all others.

    Also its place in there: lists on the way keep only the item that is meant.
    """
    if place and isinstance(value, dict) and place[0] in value:
        member, rest = _reduced(value[place[0]], place[1:])
        return {**{name: _cut(other) for name, other in value.items()}, place[0]: member}, [place[0], *rest]
    if place and isinstance(value, list) and isinstance(place[0], int):
        item, rest = _reduced(value[place[0]], place[1:])
        return [item], [0, *rest]
    return _cut(value), []


def _cut(value: Any) -> Any:
    if isinstance(value, list):
        return [_cut(item) for item in value[:_EXPLAINED_ITEMS]]
    if isinstance(value, dict):
        return {name: _cut(member) for name, member in islice(value.items(), _EXPLAINED_ITEMS)}
    return value


def _restored(found: list[str | int], here: list[str | int], place: list[str | int]) -> list[str | int]:
    """A place in the reduced value as a place in the whole one."""
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(found, here, strict=False)))
    return [*place[:shared], *found[shared:]]


def _bad_request(found: list[tuple[list[str | int], str]]) -> BadRequest:
    shown = [(pointer(place), message[:_SHOWN_CHARACTERS]) for place, message in found[:_SHOWN_ERRORS]]
    return BadRequest("; ".join(f"{where}: {message}" for where, message in shown), where=shown[0][0])


def _place(location: tuple[int | str, ...], value: Any) -> list[str | int]:
    """Pydantic's location without the tags of unions, which are no members of `value`."""
    place: list[str | int] = []
    for position, part in enumerate(location):
        match value:
            case dict() if part in value:
                value = value[part]
            case list() if isinstance(part, int):
                value = value[part]
            case dict() if position == len(location) - 1:  # the member that is missing
                pass
            case _:
                continue
        place.append(part)
    return place
