"""Whether an answer is what the contract says, for the tests of the stand-in; the kit has its own ways."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

from generated.operations import OPERATIONS
from tests.conformance.exchanges import Exchange

CONTRACT: dict[str, Any] = json.loads((Path(__file__).parents[2] / "generated" / "conformance.json").read_text())


def validate(exchange: Exchange) -> None:
    """Check a good answer, event by event and line by line.

    Raises:
        ValueError: it is not what the contract says.
    """
    content = _content(exchange.operation)
    if content is None:
        if exchange.body not in (b"", b"null", b"{}"):
            raise ValueError(f"{exchange.operation}: a body where the contract has none")
        return
    if exchange.media not in content:
        raise ValueError(f"{exchange.operation}: {exchange.media!r} is none of {', '.join(content)}")
    validator = _validator(exchange.operation, exchange.media)
    for item in _items(exchange):
        validator.validate(item)


def _content(operation: str) -> dict[str, Any] | None:
    found = OPERATIONS[operation]
    responses = CONTRACT["paths"][found.path][found.method.lower()]["responses"]
    content: dict[str, Any] | None = responses["200"].get("content")
    return content


@cache
def _validator(operation: str, media: str) -> Any:
    schema = (_content(operation) or {})[media]["schema"]
    if media == "text/event-stream":
        schema = schema["properties"]["data"]["contentSchema"]
    elif media == "application/jsonl":
        schema = schema["items"]
    return jsonschema_rs.validator_for({**schema, "components": CONTRACT["components"]}, validate_formats=True)


def _items(exchange: Exchange) -> list[Any]:
    text = exchange.body.decode()
    if exchange.media == "application/json":
        return [json.loads(text)]
    if exchange.media == "application/jsonl":
        return [json.loads(line) for line in text.splitlines()]
    text = text.replace("\r\n", "\n")
    if not text.endswith("\n\n"):
        raise ValueError("the last event does not end with a blank line")
    frames = [frame for frame in text[:-2].split("\n\n") if not frame.startswith(":")]
    return [json.loads(frame.removeprefix("data:")) for frame in frames]
