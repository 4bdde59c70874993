"""One trace for each request of the contract, from its routing to the last byte of its answer."""

from __future__ import annotations

from dataclasses import replace

from opentelemetry.trace import Status, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backends.errors import Cancelled
from backends.telemetry import names
from backends.telemetry.tracing import Tracing, failed, traceparent_of
from generated.operations import OPERATIONS
from server.http.errors import problem_of
from server.http.request_context import state_of

UNTRACED = frozenset({"health", *(name for name, operation in OPERATIONS.items() if operation.module == "telemetry")})
"""Operations that watch the server: looking at traces must not make some."""


class Traces:
    """ASGI, behind the routing. The answer's header `traceresponse` names its trace and span as `traceparent` does."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = state_of(scope)
        operation = OPERATIONS.get(state.operation)
        if not self._tracing.enabled or operation is None or state.operation in UNTRACED:
            await self._app(scope, receive, send)
            return
        context = state.context
        assert context is not None  # noqa: S101 - CallContexts is always in front
        attributes = {
            names.OPERATION: operation.operation_id,
            names.HTTP_METHOD: operation.method,
            names.HTTP_ROUTE: operation.path,
        }
        status = 499
        with self._tracing.request(context, operation.path, attributes) as span:
            own = traceparent_of(span)
            state.context = replace(context, traceparent=own)

            async def watched(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    message = {**message, "headers": [*message["headers"], (b"traceresponse", (own or "").encode())]}
                await send(message)

            try:
                await self._app(scope, receive, watched)
            except Exception as error:
                status = problem_of(error).status
                failed(span, error)
                raise
            finally:
                if state.failure is not None:
                    failed(span, state.failure)
                elif context.cancellation.cancelled:
                    failed(span, Cancelled("the caller has gone"))
                elif status >= 500:
                    span.set_status(Status(StatusCode.ERROR))
                span.set_attribute(names.HTTP_STATUS, status)
