"""Request bodies: of the right media type, read within a size and a time, then parsed and checked."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from backends.errors import BadRequest, Cancelled, Overloaded, PayloadTooLarge, UnsupportedMediaType
from generated.operations import OPERATIONS
from server.http.gate import Gate
from server.http.json_text import parse_json
from server.http.options import HttpOptions
from server.http.request_context import state_of

_IN_LOOP_BYTES = 64 * 1024  # a larger body is parsed in a thread, so that the event loop goes on between the steps
_DRAINED_BYTES = 128 * 1024 * 1024  # nothing of it is kept, and the time is what bounds the work
_DRAIN_S = 2.0
_BUFFERED_BODIES = 8  # times the largest body: what all bodies that are being received may hold together


class MediaTypes:
    """ASGI, behind routing: lets through bodies that are JSON, under the one name by which Connexion knows it.

    Connexion compares media types letter by letter and would skip the gate for `Application/JSON`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        if OPERATIONS[state_of(scope).operation].body_model is not None:
            _check_media_type(Headers(scope=scope))
            headers.append((b"content-type", b"application/json"))
        await self._app({**scope, "headers": headers}, receive, send)


class BodyReader:
    """Reads the body of a request into the model of its operation."""

    def __init__(self, gate: Gate, options: HttpOptions) -> None:
        self._gate = gate
        self._options = options
        self._buffered = 0

    async def read(self, model: type[BaseModel], scope: Scope, receive: Receive) -> BaseModel:
        """The model of the body.

        Raises:
            BadRequest: no body, not JSON, not the model. PayloadTooLarge: over a limit.
            HTTPException: 408, it did not come in time. Cancelled: the client left.
        """
        raw = await self._bytes(scope, receive)
        if not raw.strip():
            raise BadRequest("a JSON body is required", where="body")
        if len(raw) <= _IN_LOOP_BYTES:
            return self._parse(model, raw)
        return await asyncio.to_thread(self._parse, model, raw)

    def _parse(self, model: type[BaseModel], raw: bytes) -> BaseModel:
        value = parse_json(raw, depth=self._options.json_depth, values=self._options.json_values)
        return self._gate.check(model, value, may_differ=self._gate.may_differ(raw))

    async def _bytes(self, scope: Scope, receive: Receive) -> bytes:
        limit = self._options.body_limit_bytes
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > limit:
            if "expect" not in headers:  # else the client waits for permission to send
                await self._drain(receive)
            raise self._too_large()
        body, more, counted = bytearray(), True, 0
        try:
            async with asyncio.timeout(self._options.body_timeout_s):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Cancelled("the client left before its body was complete")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    self._buffered += len(body) - counted
                    counted = len(body)
                    if self._buffered > _BUFFERED_BODIES * limit:
                        raise Overloaded("too many large bodies are being received; send the request again later")
                    if len(body) > limit:
                        body.clear()
                        await self._drain(receive)
                        raise self._too_large()
        except TimeoutError:
            raise HTTPException(408, f"the body was not complete within {self._options.body_timeout_s:g} s") from None
        finally:
            self._buffered -= counted
        return bytes(body)

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"larger than {self._options.body_limit_bytes} bytes", where="body")

    async def _drain(self, receive: Receive) -> None:
        """Throw away some of the rest: a client that is still sending could miss the answer."""
        drained = 0
        try:
            async with asyncio.timeout(_DRAIN_S):
                while drained < _DRAINED_BYTES:
                    message = await receive()
                    drained += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            return


def _check_media_type(headers: Headers) -> None:
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        raise UnsupportedMediaType(f"{coding[:40]!r} is not accepted; send it uncompressed", where="content-encoding")
    media_type, _, options = headers.get("content-type", "").partition(";")
    media_type = media_type.strip().lower()
    if media_type and media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaType(f"{media_type[:80]!r} is not accepted; send application/json", where="content-type")
    for option in options.split(";"):
        name, _, value = option.strip().lower().partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType(f"charset {value[:40]!r} is not accepted; JSON is UTF-8", where="content-type")
