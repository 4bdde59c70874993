"""The contract as data: the operations of `contract.json`, and what their answers have to be.

`contract.json` is written by the generator of the project that this kit comes from, out of the OpenAPI document with
corrections of its defects and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

DOCUMENT = Path(__file__).with_name("contract.json")
JSON, SSE, JSONL = "application/json", "text/event-stream", "application/jsonl"
NULL = {"type": "null"}
_REF = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of the path or of the query string. schema: as in the contract; None: JSON in the query string."""

    name: str
    location: str
    required: bool
    schema: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Operation:
    """api: the contract's tag as one word (`vector-io`). path: the contract's (`/v1/models/{model_id}`).

    body: the schema of the request's body, None where there is none. answers: a validator by media type; none where
    the contract only says "OK". nullable: `null` may stand for "there is none".
    """

    id: str
    api: str
    method: str
    path: str
    parameters: tuple[Parameter, ...]
    body: Mapping[str, Any] | None
    answers: Mapping[str, jsonschema_rs.Validator] = field(repr=False)
    nullable: bool

    @property
    def label(self) -> str:
        """`POST /v1/models`"""
        return f"{self.method} {self.path}"

    @property
    def path_parameters(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters if parameter.location == "path")


@dataclass(frozen=True, slots=True)
class Contract:
    """All operations by their ids. document: the whole OpenAPI document; schemas: its components."""

    document: Mapping[str, Any]
    operations: Mapping[str, Operation]

    @property
    def schemas(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.document["components"]["schemas"]
        return found

    @property
    def apis(self) -> list[str]:
        return sorted({operation.api for operation in self.operations.values()})

    def body_name(self, operation: str) -> str:
        """The name of the schema of an operation's body; empty where it is none of the components."""
        return str((self.operations[operation].body or {}).get("$ref", "")).removeprefix(_REF)

    def at(self, request: str) -> Operation | None:
        """The operation of a request, `METHOD /path`; ids may have slashes, so the longest path that fits is it."""
        method, _, path = request.partition(" ")
        fit = [
            operation
            for operation in self.operations.values()
            if operation.method == method and re.fullmatch(re.sub(r"\\{\w+\\}", ".+", re.escape(operation.path)), path)
        ]
        return max(fit, key=lambda operation: len(operation.path), default=None)

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema that a reference leads to, or the schema itself."""
        while "$ref" in schema:
            schema = self.schemas[schema["$ref"].removeprefix(_REF)]
        return schema


def api_of(tag: str) -> str:
    """The name of an API as one word.

    >>> api_of("BatchInference (Coming Soon)"), api_of("VectorDBs"), api_of("DatasetIO"), api_of("ToolRuntime")
    ('batch-inference', 'vector-dbs', 'dataset-io', 'tool-runtime')
    """
    word = tag.partition(" (")[0]
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", word).lower()


@cache
def load() -> Contract:
    """The contract of this kit."""
    document = json.loads(DOCUMENT.read_text())
    components = {"components": {"schemas": opened(document["components"]["schemas"])}}
    operations = {}
    for path, item in document["paths"].items():
        for method, entry in item.items():
            content = entry["responses"]["200"].get("content", {})
            operations[entry["operationId"]] = Operation(
                id=entry["operationId"],
                api=api_of(entry["tags"][0]),
                method=method.upper(),
                path=path,
                parameters=tuple(_parameters(entry)),
                body=_body(entry),
                answers={
                    media: jsonschema_rs.Draft202012Validator(
                        {**opened(_one(media, value["schema"])), **components},
                        validate_formats=True,
                        formats={"date-time": is_time},
                    )
                    for media, value in content.items()
                },
                nullable=NULL in content.get(JSON, {}).get("schema", {}).get("anyOf", []),
            )
    return Contract(document, operations)


def is_time(text: str) -> bool:
    """A time as the official clients read it: ISO 8601, with an offset from UTC or without one.

    >>> is_time("2026-11-25T12:00:00Z"), is_time("2026-11-25T12:00:00.123456"), is_time("yesterday")
    (True, True, False)
    """
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def opened(schema: Any) -> Any:
    """A schema whose objects may hold more members than it names.

    The official clients keep what they do not know, so a server that says more than the contract is not wrong.
    """
    if isinstance(schema, list):
        return [opened(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: opened(value) for name, value in schema.items() if not (name == "additionalProperties" and value is False)
    }


def _one(media: str, schema: Any) -> Any:
    """What one JSON value of the answer has to be: the whole answer, one event, or one line."""
    if media == SSE:
        return schema["properties"]["data"]["contentSchema"]
    if media == JSONL:
        return schema["items"]
    # Null is judged apart, so that an error says what is wrong with the value and not that neither form fits.
    return next((part for part in schema.get("anyOf", ()) if NULL in schema["anyOf"] and part != NULL), schema)


def _body(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for media in entry.get("requestBody", {}).get("content", {}).values():
        schema: Mapping[str, Any] = media["schema"]
        return schema
    return None


def _parameters(entry: Mapping[str, Any]) -> Iterator[Parameter]:
    for parameter in entry.get("parameters", ()):
        yield Parameter(parameter["name"], parameter["in"], parameter.get("required", False), parameter.get("schema"))
