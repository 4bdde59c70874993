"""From Connexion's event loop to Flask's threads and back.

a2wsgi's own bridge has ten threads, never notices that a client has left and cannot speak while a handler is silent.
This one runs a call in a thread of `limits.Admission` and relays what it yields:

- the status goes out with the first chunk, so an error before it is still a real error status;
- a client that leaves cancels the `CallContext` at once and closes the handler's iterator at its next chunk;
- an event stream that is silent for `ping_interval_s` gets `: ping`, only ever between events, because every chunk
  of the iterable is one whole event;
- an error after the first byte becomes the last event of the stream;
- a client that does not read for `write_timeout_s` is cut off.
"""

from __future__ import annotations

import asyncio
import io
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from a2wsgi.wsgi import Body, build_environ
from starlette.types import Receive, Scope, Send

from backends.context import CallContext
from backends.errors import DeadlineExceeded
from generated.operations import OPERATIONS, Operation
from server.http.errors import error_event, report
from server.http.limits import Admission
from server.http.options import HttpOptions
from server.http.request_context import Observer, state_of

log = logging.getLogger("onnxstack.http")

PING = b": ping\n\n"
_CAPACITY = 32  # chunks that may wait for the client before the handler does

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Abandoned(BaseException):
    """Nobody waits for the rest of this response."""


class _Exchange:
    """What a handler's thread hands to the event loop: status and headers, chunks, and how it ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._changed = asyncio.Event()
        self._condition = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._abandoned = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.ended = False
        self.error: BaseException | None = None

    # In the handler's thread

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], None]:
        """WSGI's start_response."""
        self.headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self.status = int(status.partition(" ")[0])
        return self.put

    def put(self, chunk: bytes) -> None:
        """Hand over a chunk; waits while the client is slow. Raises _Abandoned when it has left."""
        with self._condition:
            while len(self._chunks) >= _CAPACITY and not self._abandoned:
                self._condition.wait()
            if self._abandoned:
                raise _Abandoned
            self._chunks.append(chunk)
            first = len(self._chunks) == 1
        if first:
            self._notify()

    def run(self, app: WsgiApp, environ: dict[str, Any]) -> None:
        """The whole call."""
        try:
            if self._abandoned:  # left while waiting for a thread
                return
            iterable = app(environ, self.start)
            try:
                for chunk in iterable:
                    if chunk:
                        self.put(chunk)
            finally:
                close = getattr(iterable, "close", None)
                if close is not None:
                    close()
        except _Abandoned:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.ended = True
            self._notify()

    # In the event loop

    def abandon(self) -> None:
        """Make the thread stop at its next chunk."""
        with self._condition:
            self._abandoned = True
            self._condition.notify_all()
        self._changed.set()

    async def take(self, timeout_s: float) -> tuple[bytes, bool]:
        """All chunks that are there, joined, and whether they were the last.

        Raises:
            TimeoutError: none came within `timeout_s` seconds.
        """
        if not self._changed.is_set():
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        self._changed.clear()
        with self._condition:
            ended = self.ended or self._abandoned  # before the chunks: what ended has no more of them
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._condition.notify_all()
        return data, ended

    @property
    def is_event_stream(self) -> bool:
        return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in self.headers)

    def _notify(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._changed.set)
        except RuntimeError:  # the loop is closed: the process ends
            self._abandoned = True


class Bridge:
    """ASGI application over a WSGI one. Expects an operation in the scope (Connexion's routing puts it there)."""

    def __init__(self, app: WsgiApp, options: HttpOptions, admission: Admission, observer: Observer) -> None:
        self._app = app
        self._options = options
        self._admission = admission
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = state_of(scope)
        operation = OPERATIONS[state.operation]
        assert state.context is not None  # noqa: S101 - CallContexts is always in front
        loop = asyncio.get_running_loop()
        exchange = _Exchange(loop)
        environ = _environ(scope, loop, receive)
        self._admission.run(operation, lambda: exchange.run(self._app, environ))
        watcher = loop.create_task(_watch(receive, state.context, exchange))
        response = _Response(exchange, operation, self._options, self._observer, send)
        finished = False
        try:
            finished = await response.relay(state.context)
        except _SlowClientError:
            log.info("client of %s did not read for %g s", operation.operation_id, self._options.write_timeout_s)
            state.abort()
            await asyncio.sleep(0)  # the loop tells uvicorn that the connection is gone
        finally:
            watcher.cancel()
            if not finished:
                state.context.cancellation.cancel()
            state.failure = response.failure
            exchange.abandon()
            response.close()


class _Response:
    """The event loop's side of one response. failure: why it broke off after its first byte."""

    def __init__(
        self,
        exchange: _Exchange,
        operation: Operation,
        options: HttpOptions,
        observer: Observer,
        send: Send,
    ) -> None:
        self._exchange = exchange
        self._operation = operation
        self._options = options
        self._observer = observer
        self._send = send
        self._started = False
        self._streams = False
        self.failure: BaseException | None = None

    async def relay(self, context: CallContext) -> bool:
        """Send everything; True when the response is complete."""
        deadline = time.monotonic() + (context.deadline - time.time() if context.deadline else float("inf"))
        silence = self._options.ping_interval_s
        while True:
            left = deadline - time.monotonic()
            try:
                data, ended = await self._exchange.take(max(0.0, min(silence, left)))
            except TimeoutError:
                if left <= silence:
                    context.cancellation.cancel()
                    late = f"no complete answer within {self._options.request_timeout_s:g} s"
                    return await self._fail(DeadlineExceeded(late))
                if self._exchange.is_event_stream:
                    await self._write(PING)
                continue
            error = self._exchange.error if ended else None
            if data:
                await self._write(data)
            if context.cancellation.cancelled:
                return False  # the client has left
            if error is not None:
                return await self._fail(error)
            if ended:
                await self._write(b"", more=False)
                return True

    def close(self) -> None:
        if self._streams:
            self._observer.stream_ended(self._operation.operation_id)

    async def _fail(self, error: BaseException) -> bool:
        if not self._started:
            if isinstance(error, Exception):
                raise error
            raise RuntimeError(f"the handler ended with {type(error).__name__}") from error
        problem, self.failure = report(error), error
        if not self._streams:
            return False  # the unfinished body is the only signal that is left
        await self._write(error_event(self._operation, problem), more=False)
        return True

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        try:
            async with asyncio.timeout(self._options.write_timeout_s):
                if not self._started:
                    self._started = True
                    self._streams = self._exchange.is_event_stream
                    if self._streams:
                        self._observer.stream_started(self._operation.operation_id)
                    await self._send(
                        {
                            "type": "http.response.start",
                            "status": self._exchange.status,
                            "headers": self._exchange.headers,
                        }
                    )
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            raise _SlowClientError from None


class _SlowClientError(Exception):
    """The client did not read for `write_timeout_s`."""


async def _watch(receive: Receive, context: CallContext, exchange: _Exchange) -> None:
    """Wait for the client to leave, then stop its call."""
    while (await receive())["type"] != "http.disconnect":
        pass
    context.cancellation.cancel()
    exchange.abandon()


def _environ(scope: Scope, loop: asyncio.AbstractEventLoop, receive: Receive) -> dict[str, Any]:
    """The WSGI environment, without a body: the model made of it is already in Connexion's context."""
    environ: dict[str, Any] = dict(build_environ(scope, Body(loop, receive)))  # type: ignore[arg-type]
    environ["wsgi.input"] = io.BytesIO()
    environ["CONTENT_LENGTH"] = "0"
    environ.pop("CONTENT_TYPE", None)
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return environ
