"""The gate: what of a request's JSON reaches a handler, as the generated model.

The JSON Schema decides what is accepted (jsonschema-rs on `generated/schemas.json`, 2 us for a chat body), Pydantic
builds the model and, where it refuses the same thing, gives the better explanation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
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
_SHOWN_CHARACTERS = 300


class Gate:
    """Validators of every model that a request may hold, built once.

    schemas: `generated/schemas.json`. Integers without a range get that of 64 bits, so that none overflows later.
    """

    def __init__(self, schemas: Mapping[str, Any], models: Iterable[type[BaseModel]]) -> None:
        definitions = _bounded(schemas["$defs"])
        self._nulls = NullRule(definitions)
        self._validators = {
            model: jsonschema_rs.validator_for(
                {"$schema": schemas["$schema"], "$ref": f"#/$defs/{model.__name__}", "$defs": definitions},
                mask="the value",
            )
            for model in models
        }

    def check(self, model: type[ModelT], value: Any, *, may_hold_null: bool = True) -> ModelT:
        """The model of `value`, which it may change in place.

        may_hold_null: False where the text has no `null` at all, which saves the walk.

        Raises:
            BadRequest: with JSON pointers to what is wrong.
        """
        if may_hold_null:
            self._nulls.drop(model.__name__, value)
        validator = self._validators[model]
        accepted = validator.is_valid(value)
        try:
            instance = model.model_validate(value)
        except ValidationError as error:
            raise _explain_pydantic(error, value) from None
        if not accepted:
            raise _explain_schema(validator.iter_errors(value))
        return instance


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


def _explain_pydantic(error: ValidationError, value: Any) -> BadRequest:
    found: dict[str, str] = {}
    depth: dict[str, int] = {}
    for entry in error.errors(include_url=False, include_context=False, include_input=False):
        place = _place(entry["loc"], value)
        where = pointer(place)
        message = entry["msg"][0].lower() + entry["msg"][1:]
        found[where] = f"{found[where]}, or {message}" if where in found and message not in found[where] else message
        depth[where] = len(place)
    # The alternatives of a union all complain; those that got furthest are the ones that were meant.
    deepest = sorted(found, key=lambda where: -depth[where])[:_SHOWN_ERRORS]
    return _bad_request([(where, found[where]) for where in sorted(deepest)])


def _explain_schema(errors: Iterable[Any]) -> BadRequest:
    found = [(list(error.instance_path), str(error.message)) for error in errors]
    found.sort(key=lambda item: -len(item[0]))
    return _bad_request([(pointer(place), message) for place, message in found[:_SHOWN_ERRORS]])


def _bad_request(found: list[tuple[str, str]]) -> BadRequest:
    text = "; ".join(f"{where}: {message[:_SHOWN_CHARACTERS]}" for where, message in found)
    return BadRequest(text, where=found[0][0])


def _place(location: tuple[int | str, ...], value: Any) -> list[int | str]:
    """Pydantic's location without the tags of unions, which are no members of `value`."""
    place: list[int | str] = []
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
