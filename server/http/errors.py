"""Every failure as one answer: `application/problem+json` with the status of one table, for every cause.

The body is what RFC 9457 asks for plus `request_id` and `error: {message, code, type}`, which both generations of the
official client and OpenAI-style tools read. `x-should-retry: false` tells the official client not to send the request
again, which it otherwise does for 408, 409, 429 and every status from 500.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from werkzeug.exceptions import HTTPException as WerkzeugException

from backends.errors import (
    BadRequest,
    Cancelled,
    Conflict,
    CorruptModel,
    DeadlineExceeded,
    Forbidden,
    Misconfigured,
    NotBuilt,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    Retryable,
    SessionBusy,
    StackError,
    StorageFull,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from generated.operations import Operation
from server.http.request_context import state_of

log = logging.getLogger("onnxstack.http")

STATUSES: dict[type[StackError], int] = {
    StackError: 500,
    Misconfigured: 500,
    BadRequest: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    SessionBusy: 409,
    PayloadTooLarge: 413,
    UnsupportedMediaType: 415,
    Overloaded: 429,
    Cancelled: 499,
    NotBuilt: 501,
    Unavailable: 503,
    CorruptModel: 503,
    DeadlineExceeded: 504,
    StorageFull: 507,
}
"""The status of each class of `backends/errors.py`; a subclass that is not listed has the status of its base."""

_CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "payload_too_large",
    415: "unsupported_media_type",
    429: "overloaded",
    503: "unavailable",
}
_FAMILIES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_TITLES = {499: "Client Closed Request"}
_INTERNAL = "the server failed in an unexpected way; its log has the cause under this request id"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as it goes out. headers: beside content type and length."""

    status: int
    detail: str
    code: str
    headers: Mapping[str, str]

    @property
    def title(self) -> str:
        return _TITLES.get(self.status) or HTTPStatus(self.status).phrase

    @property
    def error(self) -> dict[str, str]:
        """The member `error` of a problem and of an error event."""
        family = "invalid_request_error" if self.status < 500 else "server_error"
        return {"message": self.detail, "code": self.code, "type": _FAMILIES.get(self.status, family)}

    def body(self, request_id: str) -> bytes:
        document = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
            "error": self.error,
        }
        return _json(document)

    async def send(self, send: Send, request_id: str) -> None:
        body = self.body(request_id)
        headers = {"content-type": "application/problem+json", "content-length": str(len(body)), **self.headers}
        await send(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": body})


def problem_of(error: BaseException) -> Problem:
    """The one answer for `error`. What is not raised on purpose becomes a 500 that says nothing about its cause."""
    if isinstance(error, StackError):
        status = next(STATUSES[base] for base in type(error).__mro__ if base in STATUSES)
        if status == 500:
            return Problem(500, _INTERNAL, error.code, _headers(500, None))
        return Problem(status, _detail(error), error.code, _headers(status, error))
    if isinstance(error, HTTPException) and error.status_code < 500:
        given = {name.lower(): value for name, value in (error.headers or {}).items()}
        return _of_status(error.status_code, str(error.detail or ""), given)
    if isinstance(error, WerkzeugException) and error.code is not None and error.code < 500:
        return _of_status(error.code, error.description or "", {})
    return Problem(500, _INTERNAL, "internal_error", _headers(500, None))


def error_event(operation: Operation, problem: Problem) -> bytes:
    """The last event of an SSE stream that fails after its first byte.

    Beside `error` it has the least of a regular event, so that readers on the official clients 0.1.0 and 0.1.1 who
    look at the event first do not break, and nothing that says that the answer is complete.
    """
    event: dict[str, object] = {"error": problem.error}
    if operation.module == "agents":
        event["event"] = {"payload": {"event_type": "turn_start", "turn_id": ""}}
    elif operation.operation_id == "chat_completion":
        event["event"] = {"event_type": "progress", "delta": {"type": "text", "text": ""}}
    else:
        event["delta"] = ""
    return b"data: " + _json(event) + b"\n\n"


class Problems:
    """ASGI: turns whatever the application raises into a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            problem = report(error)
            if started:  # its status is out; leaving the response unfinished is the only signal that is left
                return
            await problem.send(send, state_of(scope).request_id)


def report(error: BaseException) -> Problem:
    """The answer for `error`, logged when the fault is ours."""
    problem = problem_of(error)
    if problem.status == 500:
        log.error("request failed: %s", type(error).__name__, exc_info=_without_input(error))
    elif problem.status in (503, 504, 507):
        # With paths and causes: the log is the operator's.
        told = str(error) if isinstance(error, StackError) else problem.detail
        log.warning("request refused with %d: %s", problem.status, told)
    return problem


class _Invalid(Exception):
    """Stands in the log for a ValidationError, whose text repeats what a client sent."""


def _without_input(error: BaseException, done: dict[int, BaseException] | None = None) -> BaseException:
    """`error` for the log: each ValidationError among it and its causes says where and what kind, not the value.

    done: what was made of the errors seen so far, by `id`: one may be both cause and context of another.
    """
    done = {} if done is None else done
    if id(error) in done:
        return done[id(error)]
    safe = error
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        text = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['type']}" for fault in faults)
        safe = _Invalid(f"{error.title}: {text}").with_traceback(error.__traceback__)
    done[id(error)] = safe
    cause, context, suppressed = error.__cause__, error.__context__, error.__suppress_context__
    safe.__cause__ = _without_input(cause, done) if cause is not None else None
    safe.__context__ = _without_input(context, done) if context is not None else None
    safe.__suppress_context__ = suppressed
    return safe


def _detail(error: StackError) -> str:
    if error.where and not error.message.startswith(error.where):
        return f"{error.where}: {error.message}"
    return error.message


def _of_status(status: int, detail: str, headers: Mapping[str, str]) -> Problem:
    title = HTTPStatus(status).phrase
    return Problem(
        status,
        detail or title,
        _CODES.get(status) or title.lower().replace(" ", "_"),
        {**_headers(status, None), **headers},
    )


def _headers(status: int, error: StackError | None) -> dict[str, str]:
    if status == 401:
        return {"www-authenticate": "Bearer", "x-should-retry": "false"}
    if status == 408:
        return {"connection": "close"}
    if status == 413:  # what is still being sent would have to be read otherwise
        return {"connection": "close", "x-should-retry": "false"}
    if isinstance(error, Retryable) and error.retry_after_s is not None:
        return {"retry-after": str(max(1, round(error.retry_after_s)))}
    return {"x-should-retry": "false"}


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
