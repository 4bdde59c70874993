"""Serving, draining, ending: the ASGI layer that knows every request that runs. It lies within `Requests`, so that what
it refuses has an id, an access line and metrics like every other answer.

While draining, readiness says 503 and new work is refused with 503; what runs goes on. `end_running` answers what is
left: a request whose answer has not begun gets a 503, a stream gets a last error event, and the application sees a
disconnect, which cancels the work behind it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any

from backends.errors import Unavailable
from generated.operations import OPERATIONS, Operation
from server.http.errors import error_event, problem_of
from server.http.request_context import state_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

LIVENESS = "/livez"
_STOPPING = Unavailable("the server is stopping; send the request again", retry_after_s=2.0)
_STREAMS = [
    (re.compile(re.sub(r"\{[^}]*\}", "[^/]+", operation.path)), operation)
    for operation in OPERATIONS.values()
    if operation.stream_media == "text/event-stream"
]


class Lifecycle:
    """Wraps an application; used from its event loop only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._running: set[_Running] = set()
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == LIVENESS:
            await self._app(scope, receive, send)
            return
        if self.draining:
            await _refuse(scope, send)
            return
        request = _Running(scope, receive, send)
        self._running.add(request)
        try:
            await self._app(scope, request.receive, request.send)
        finally:
            self._running.discard(request)

    def start_drain(self) -> None:
        """Refuse new work from now on."""
        self.draining = True

    def running(self) -> int:
        """Number of requests being answered."""
        return len(self._running)

    async def end_running(self) -> None:
        """Answer everything that still runs and tell the application that the callers have gone."""
        await asyncio.gather(*(request.end() for request in list(self._running)), return_exceptions=True)


class _Running:
    """One request: lets messages through until it is ended."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._media = ""
        self._state = "waiting"  # -> answering -> answered
        self._ended = asyncio.Event()

    async def receive(self) -> Message:
        if self._ended.is_set():
            return {"type": "http.disconnect"}
        message = asyncio.ensure_future(self._receive())
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({message, ended}, return_when=asyncio.FIRST_COMPLETED)
            return message.result() if message.done() else {"type": "http.disconnect"}
        finally:
            ended.cancel()
            if not message.done():
                message.cancel()

    async def send(self, message: Message) -> None:
        if self._ended.is_set():
            return
        if message["type"] == "http.response.start":
            self._state = "answering"
            headers = {bytes(name).lower(): bytes(value) for name, value in message.get("headers", ())}
            self._media = headers.get(b"content-type", b"").partition(b";")[0].decode("latin-1")
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._state = "answered"
        await self._send(message)

    async def end(self) -> None:
        if self._ended.is_set() or self._state == "answered":
            return
        self._ended.set()
        if self._state == "waiting":
            await _refuse(self._scope, self._send)
        elif self._media == "text/event-stream" and (operation := _streaming(self._scope["path"])) is not None:
            event = error_event(operation, problem_of(_STOPPING))
            await self._send({"type": "http.response.body", "body": event, "more_body": False})
        # Any other answer that has begun is left to be cut: its length is promised, or a half one would look whole.


def _streaming(path: str) -> Operation | None:
    """The operation that streams events at a path."""
    return next((operation for pattern, operation in _STREAMS if pattern.fullmatch(path)), None)


async def _refuse(scope: Scope, send: Send) -> None:
    problem = problem_of(_STOPPING)
    problem = replace(problem, headers={**problem.headers, "connection": "close"})
    await problem.send(send, state_of(scope).request_id)
