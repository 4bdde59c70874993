"""Path and query parameters, in every form that clients send them.

Lists: repeated (`a=1&a=2`), with commas (`a=1,2`, the official client) or a JSON array; an empty one is an empty list.
Objects: JSON, `name[key]=value` (the official client), `key=value` of their own members, or a Python literal.
Lists of objects: a JSON array, repeated JSON objects, or Python literals with commas between (the official client).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel

from backends.errors import BadRequest
from generated.operations import Operation, Parameter
from server.http.gate import Gate

_MAX_FIELDS = 1000
_MAX_LITERAL = 16 * 1024
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_INT64 = range(-(2**63), 2**63)
_NUMBER = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,2})?")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}

Schemas = Mapping[str, Mapping[str, Any]]


class ParameterParser:
    """Turns the query string and the path's parts into a handler's arguments."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def parse(
        self, operation: Operation, path: Mapping[str, str], query_string: bytes, schemas: Schemas
    ) -> dict[str, object]:
        """Argument name -> value; what is not given is not in it.

        path: the decoded parts. schemas: JSON Schema of each parameter in the routing document, for its ranges.

        Raises:
            BadRequest: an unknown parameter, a missing one, or a value that does not fit; names the parameter.
        """
        query = _query(query_string)
        arguments: dict[str, object] = {}
        for parameter in operation.parameters:
            if parameter.location == "path":
                arguments[parameter.name] = path[parameter.name]
                continue
            value = self._value(parameter, query)
            if value is not None:
                _check_range(parameter.name, value, schemas.get(parameter.name, {}))
                arguments[parameter.name] = value
            elif parameter.required:
                raise BadRequest("is required", where=f"query parameter {parameter.name}")
        if query:
            known = sorted(p.name for p in operation.parameters if p.location == "query")
            expected = f"this operation has {', '.join(known)}" if known else "this operation has none"
            raise BadRequest(f"not known; {expected}", where=f"query parameter {min(query)[:80]}")
        return arguments

    def _value(self, parameter: Parameter, query: dict[str, list[str]]) -> object:
        """The value, taken out of `query`; None when it is not given."""
        if parameter.type == "object":
            return self._object(parameter, query)
        texts = query.pop(parameter.name, None)
        if parameter.type == "array":
            more = query.pop(f"{parameter.name}[]", None)
            if texts is None and more is None:
                return None
            texts = [*(texts or ()), *(more or ())]
            return _strings(parameter.name, texts) if parameter.model is None else self._objects(parameter, texts)
        if texts is None:
            return None
        if len(texts) > 1:
            raise BadRequest("given more than once", where=f"query parameter {parameter.name}")
        return _scalar(parameter, texts[0])

    def _object(self, parameter: Parameter, query: dict[str, list[str]]) -> BaseModel | None:
        assert parameter.model is not None  # noqa: S101 - codegen names the model of every object
        where = f"query parameter {parameter.name}"
        bracketed = [name for name in query if name.startswith(f"{parameter.name}[") and name.endswith("]")]
        exploded = [name for name in parameter.model.model_fields if name in query]
        texts = query.pop(parameter.name, None)
        value: object
        if texts is not None:
            if texts == [""]:
                return None
            value = _literal(texts[0], where) if len(texts) == 1 else None
        elif bracketed:
            value = {name[len(parameter.name) + 1 : -1]: query.pop(name)[-1] for name in bracketed}
        elif exploded:
            value = {name: query.pop(name)[-1] for name in exploded}
        else:
            return None
        return self._model(parameter.model, value, where)

    def _objects(self, parameter: Parameter, texts: list[str]) -> list[BaseModel]:
        assert parameter.model is not None  # noqa: S101 - see _object
        where = f"query parameter {parameter.name}"
        values: list[object] = []
        for text in texts:
            if text.strip():
                value = _literal(text, where)
                values += value if isinstance(value, list) else [value]
        return [self._model(parameter.model, value, f"{where}, item {i}") for i, value in enumerate(values)]

    def _model(self, model: type[BaseModel], value: object, where: str) -> BaseModel:
        if not isinstance(value, dict):
            raise BadRequest("a JSON object is expected", where=where)
        try:
            return self._gate.check(model, value)
        except BadRequest as error:
            raise BadRequest(error.message, where=where) from None


def _query(query_string: bytes) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS
        )
    except UnicodeError:
        raise BadRequest("not valid UTF-8 after percent-decoding", where="query string") from None
    except ValueError:
        raise BadRequest(f"more than {_MAX_FIELDS} parameters", where="query string") from None
    query: dict[str, list[str]] = {}
    for name, text in pairs:
        if _CONTROL.search(name) or _CONTROL.search(text):
            raise BadRequest("holds a control character", where=f"query parameter {_CONTROL.sub('?', name)[:80]}")
        query.setdefault(name, []).append(text)
    return query


def _scalar(parameter: Parameter, text: str) -> object:
    if parameter.type == "integer" and _INTEGER.fullmatch(text) and int(text) in _INT64:
        return int(text)
    if parameter.type == "number" and _NUMBER.fullmatch(text):
        return float(text)
    if parameter.type == "boolean" and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if parameter.type == "string":
        return text
    expected = "integer of 64 bits" if parameter.type == "integer" else parameter.type
    raise BadRequest(f"{text[:40]!r} is not of type {expected}", where=f"query parameter {parameter.name}")


def _strings(name: str, texts: list[str]) -> list[str]:
    values: list[str] = []
    for text in texts:
        listed = None
        if text.startswith("["):
            try:
                listed = json.loads(text)
            except (ValueError, RecursionError):
                listed = None
        if isinstance(listed, list):
            if not all(isinstance(item, str) for item in listed):
                raise BadRequest("a list of strings is expected", where=f"query parameter {name}")
            values += listed
        elif text:
            values += text.split(",")
    return values


def _literal(text: str, where: str) -> object:
    """The value of a JSON text, or of Python literals with commas between, which give a list."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        pass
    try:
        if len(text) > _MAX_LITERAL or sum(map(text.count, "[({")) > 100:
            raise ValueError
        values: object = ast.literal_eval(f"[{text}]")
        json.dumps(values, allow_nan=False)  # only what JSON has: no bytes, sets, complex numbers
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise BadRequest("a JSON object or a JSON array of objects is expected", where=where) from None
    return values[0] if isinstance(values, list) and len(values) == 1 else values


def _refuse(name: str) -> object:
    raise ValueError(name)


def _check_range(name: str, value: object, schema: Mapping[str, Any]) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        least, most = schema.get("minimum"), schema.get("maximum")
        if (least is not None and value < least) or (most is not None and value > most):
            limits = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
            raise BadRequest(f"{value} is not {' and '.join(limits)}", where=f"query parameter {name}")
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0) or len(value) > schema.get("maxLength", len(value)):
            raise BadRequest(
                f"{schema.get('minLength', 0)} to {schema.get('maxLength', 'any')} characters are expected",
                where=f"query parameter {name}",
            )
        if "enum" in schema and value not in schema["enum"]:
            expected = ", ".join(map(str, schema["enum"]))
            raise BadRequest(f"one of {expected} is expected", where=f"query parameter {name}")
