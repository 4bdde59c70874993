"""Bytes to the generated models and back."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic_core
from pydantic import BaseModel, TypeAdapter, ValidationError

from generated.operations import Operation, Parameter

M = TypeVar("M", bound=BaseModel)


class Refused(Exception):
    """The answer is an error. status: of HTTP."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def parsed(model: type[M], body: bytes) -> M:
    """A request's body. A null member that may be absent counts as absent, as the official clients send it.

    Raises:
        Refused: 400, no JSON, or not what the model says.
    """
    try:
        value = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(400, f"the body is no JSON: {error}") from None
    if not _finite(value):
        raise Refused(400, "a number of the body is out of range")
    try:
        return _validated(model, value)
    except ValidationError as error:
        nulls = [each["loc"] for each in error.errors() if each["input"] is None and each["type"] != "missing"]
        for location in nulls:
            _drop(value, location)
    try:
        return _validated(model, value)
    except ValidationError as error:
        first = error.errors()[0]
        raise Refused(400, f"body, {'/'.join(map(str, first['loc']))}: {first['msg']}") from None


def _validated(model: type[M], value: Any) -> M:
    return model.model_validate_json(json.dumps(value), strict=True)


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _drop(value: Any, location: tuple[int | str, ...]) -> None:
    """Take the null at a location of pydantic's away; names of union members in it lead nowhere and are skipped."""
    for step in location:
        if isinstance(value, dict) and step in value:
            if value[step] is None:
                del value[step]
                return
            value = value[step]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]


def arguments(operation: Operation, query: list[tuple[str, str]]) -> dict[str, Any]:
    """The query parameters of an operation, as the official client and the contract's document write them.

    Raises:
        Refused: 400, one is missing or not of its type.
    """
    found: dict[str, Any] = {}
    for parameter in operation.parameters:
        if parameter.location != "query":
            continue
        if parameter.type == "object":
            prefix = f"{parameter.name}["
            members = {name[len(prefix) : -1]: value for name, value in query if name.startswith(prefix)}
            values = [json.dumps(members)] if members else [value for name, value in query if name == parameter.name]
        else:
            values = [value for name, value in query if name == parameter.name]
        if values:
            found[parameter.name] = _argument(parameter, values)
        elif parameter.required:
            raise Refused(400, f"query, {parameter.name}: missing")
    return found


def _argument(parameter: Parameter, values: list[str]) -> Any:
    wrong = Refused(400, f"query, {parameter.name}: not {parameter.type}")
    if parameter.type == "integer":
        if not re.fullmatch(r"-?\d{1,18}", values[0], re.ASCII):
            raise wrong
        return int(values[0])
    if parameter.model is not None:
        value = _structure(",".join(values), wrong)
        try:
            if parameter.type == "object":
                return parameter.model.model_validate(value, strict=True)
            return TypeAdapter(list[parameter.model]).validate_python(value, strict=True)  # type: ignore[name-defined]
        except ValidationError:
            raise wrong from None
    if parameter.type == "array":
        return [item for value in values for item in value.split(",") if item]
    return values[0]


def _structure(text: str, wrong: Refused) -> Any:
    """JSON; or what the official client makes of a list of objects, their Python forms with commas between."""
    if not text:
        return []
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(f"[{text}]")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise wrong from None


def plain(value: Any) -> Any:
    """A result as JSON values; members that are not there are left out, nulls in free objects stay."""
    if isinstance(value, BaseModel):
        return {name: plain(member) for name, member in value if member is not None}
    if isinstance(value, Mapping):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    return pydantic_core.to_jsonable_python(value)


def dumped(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
