"""From a handler's result to a response: JSON, `null`, SSE or jsonl.

Absent members are left out (free objects keep their nulls), timestamps go out in UTC with `Z`, a number that JSON
cannot write becomes null. SSE is `data: <json>` and an empty line, nothing else: no `event:`, no `id:`, no `[DONE]`,
which the official clients 0.1.x would try to parse. jsonl has one line per item and no empty lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import flask
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_json

from generated.operations import ModelType, Operation

Encoder = Callable[[Any], bytes]
_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def respond(operation: Operation, result: object) -> flask.Response:
    """The response for what the handler of `operation` returned.

    Raises:
        TypeError: the result is none of what the contract lets this operation answer.
    """
    if isinstance(result, Iterator):
        return _stream(operation, result)
    if result is None:
        if operation.response_model is not None and not operation.response_nullable:
            raise TypeError(f"{operation.operation_id} returned None, which its contract does not have")
        return flask.Response(b"null", content_type="application/json")
    if operation.response_model is None:
        raise TypeError(f"{operation.operation_id} returned {type(result).__name__}, which its contract does not have")
    return flask.Response(encoder(operation.response_model)(result), content_type="application/json")


def _stream(operation: Operation, items: Iterator[object]) -> flask.Response:
    if operation.stream_model is None or operation.stream_media is None:
        raise TypeError(f"{operation.operation_id} returned an iterator, which its contract does not have")
    encode = encoder(operation.stream_model)
    if operation.stream_media == "text/event-stream":
        chunks, content_type = _framed(items, encode, b"data: ", b"\n\n"), "text/event-stream; charset=utf-8"
    else:
        chunks, content_type = _framed(items, encode, b"", b"\n"), operation.stream_media
    return flask.Response(chunks, content_type=content_type, headers=_STREAM_HEADERS)


def _framed(items: Iterator[object], encode: Encoder, before: bytes, after: bytes) -> Iterable[bytes]:
    """One whole event or line per chunk. Closes the handler's iterator at the end and when the client leaves."""
    try:
        for item in items:
            yield before + encode(item) + after
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


@cache
def encoder(model: ModelType) -> Encoder:
    """JSON bytes of a value of `model`."""
    adapter: TypeAdapter[Any] = TypeAdapter(model)  # type: ignore[arg-type]
    if _has_timestamps(adapter):
        return lambda value: to_json(_in_utc(adapter.dump_python(value, exclude_none=True)), inf_nan_mode="null")
    if isinstance(model, type) and issubclass(model, BaseModel):
        return lambda value: value.model_dump_json(exclude_none=True).encode()
    return lambda value: adapter.dump_json(value, exclude_none=True)


def _has_timestamps(adapter: TypeAdapter[Any]) -> bool:
    return '"date-time"' in str(adapter.json_schema(mode="serialization")).replace("'", '"')


def _in_utc(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, dict):
        return {name: _in_utc(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_in_utc(item) for item in value]
    return value
