"""Who asks, under which id, until when: the state of a request and the one place that builds its `CallContext`."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backends.context import CallContext, CancellationToken, Secrets
from backends.errors import BadRequest
from server.http.options import HttpOptions

access_log = logging.getLogger("onnxstack.access")

_SCOPE_KEY = "onnxstack.request"
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+=/-]{0,127}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
PROVIDER_DATA = "x-llamastack-provider-data"


class Observer(Protocol):
    """What metrics want to know. Called in the event loop; must not block.

    operation: an operation id of the contract, the path of one of our own routes, or `unknown`: a bounded set.
    """

    def request_started(self) -> None: ...
    def request_ended(self, operation: str, method: str, status: int, duration_s: float) -> None: ...
    def stream_started(self, operation: str) -> None: ...
    def stream_ended(self, operation: str) -> None: ...


class NoObserver:
    """An Observer that looks away."""

    def request_started(self) -> None:
        pass

    def request_ended(self, operation: str, method: str, status: int, duration_s: float) -> None:
        pass

    def stream_started(self, operation: str) -> None:
        pass

    def stream_ended(self, operation: str) -> None:
        pass


@dataclass(slots=True)
class RequestState:
    """What is known of a request so far.

    abort: cuts the connection without a proper end of the response. failure: why an answer broke off that had begun,
    whose status tells nothing of it.
    """

    request_id: str
    principal: str = "anonymous"
    operation: str = "unknown"
    context: CallContext | None = None
    abort: Callable[[], None] = field(default=lambda: None)
    failure: BaseException | None = None


def state_of(scope: Scope) -> RequestState:
    """The state of the request that `scope` belongs to."""
    state: RequestState = scope[_SCOPE_KEY]
    return state


class Requests:
    """ASGI, outermost: gives every request its id and its state, and writes its access line and metrics."""

    def __init__(
        self,
        app: ASGIApp,
        observer: Observer,
        *,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._observer = observer
        self._new_id = new_id
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else self._new_id()
        abort = scope.get("extensions", {}).get("onnxstack.abort") or (lambda: None)
        state = RequestState(request_id, abort=abort)
        scope = {**scope, _SCOPE_KEY: state, "extensions": dict(scope.get("extensions") or {})}
        status = 499  # what stands in the log when the client left before the response began
        started = self._clock()

        async def identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        self._observer.request_started()
        try:
            with structlog.contextvars.bound_contextvars(request_id=request_id):
                await self._app(scope, receive, identified)
        finally:
            duration_s = self._clock() - started
            self._observer.request_ended(state.operation, scope["method"], status, duration_s)
            access_log.info(
                "%s %s %d %.1f ms",
                scope["method"],
                state.operation,
                status,
                duration_s * 1000,
                extra={
                    "request_id": request_id,
                    "principal": state.principal,
                    "operation": state.operation,
                    "method": scope["method"],
                    "status": status,
                    "duration_ms": round(duration_s * 1000, 1),
                },
            )


class CallContexts:
    """ASGI, after authentication: builds the `CallContext` of the request."""

    def __init__(self, app: ASGIApp, options: HttpOptions, *, now: Callable[[], float] = time.time) -> None:
        self._app = app
        self._options = options
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state, headers = state_of(scope), Headers(scope=scope)
        traceparent = headers.get("traceparent", "")
        state.context = CallContext(
            request_id=state.request_id,
            principal=state.principal,
            owner=state.principal if self._options.isolation == "per_key" else "",
            deadline=self._now() + self._options.request_timeout_s,
            traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else None,
            provider_data=_provider_data(headers.get(PROVIDER_DATA)),
            cancellation=CancellationToken(),
        )
        await self._app(scope, receive, send)


def _provider_data(header: str | None) -> Secrets:
    """The caller's provider keys; members that are null or empty count as not given.

    Raises:
        BadRequest: not a JSON object of strings. The message never repeats the header.
    """
    if not header:
        return Secrets()
    try:
        values = json.loads(header)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not all(value is None or isinstance(value, str) for value in values.values()):
        raise BadRequest("a JSON object of strings is expected", where="X-LlamaStack-Provider-Data")
    return Secrets({name: value for name, value in values.items() if value})
