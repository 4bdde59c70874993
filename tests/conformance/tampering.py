"""Between a client and a server: what a fault may change, and how it gets there.

A fault sees whole requests and whole answers (a stream is collected first), so it is the same around an application in
this process as in front of any server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope
from starlette.types import Send as SendMessage

from tests.conformance.standin import serving
from tests.conformance.standin.routing import route

_NOT_PASSED_ON = {"connection", "content-encoding", "content-length", "date", "host", "server", "transfer-encoding"}


@dataclass(frozen=True, slots=True)
class Request:
    """path: as on the wire, percent-encoded; query: without `?`; headers: names in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def operation(self) -> str:
        """The operationId; empty when the contract has none for this path and method."""
        found = route(unquote(self.path))
        operation = found and found[0].operations.get(self.method)
        return operation.operation_id if operation else ""

    @property
    def touched(self) -> set[str]:
        """The operation; for a wrong method the operations of the path."""
        if operation := self.operation:
            return {operation}
        found = route(unquote(self.path))
        return {each.operation_id for each in found[0].operations.values()} if found else set()

    @property
    def ids(self) -> dict[str, str]:
        """The parameters in the path."""
        found = route(unquote(self.path))
        return found[1] if found else {}

    def json(self) -> Any:
        """The body; empty when it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    def with_json(self, value: Any) -> Request:
        return replace(self, body=json.dumps(value).encode())

    def with_query(self, **changed: str | None) -> Request:
        """Other parameters; None takes one away."""
        kept = [(name, value) for name, value in parse_qsl(self.query, keep_blank_values=True) if name not in changed]
        added = [(name, value) for name, value in changed.items() if value is not None]
        return replace(self, query=urlencode([*kept, *added]))


@dataclass(frozen=True, slots=True)
class Answer:
    """headers: names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Answer:
        return cls(status, {"content-type": "application/json"}, json.dumps(value).encode())

    @property
    def media(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def streams(self) -> bool:
        """A good answer of events."""
        return self.status == 200 and self.media == "text/event-stream"

    @property
    def whole(self) -> bool:
        """A good answer of JSON."""
        return self.status == 200 and self.media == "application/json"

    def json(self) -> Any:
        return json.loads(self.body)

    def with_json(self, value: Any) -> Answer:
        return replace(self, body=json.dumps(value).encode())

    def events(self) -> list[Any]:
        """What an event stream tells (WHATWG HTML, 9.2); comments are left out."""
        events = []
        for block in self.body.decode().replace("\r\n", "\n").split("\n\n"):
            lines = [line.removeprefix("data:").removeprefix(" ") for line in block.split("\n") if line[:5] == "data:"]
            if lines:
                events.append(json.loads("\n".join(lines)))
        return events

    def with_events(self, events: list[Any]) -> Answer:
        return replace(self, body="".join(f"data: {json.dumps(event)}\n\n" for event in events).encode())

    def with_header(self, name: str, value: str | None) -> Answer:
        """Another header; None takes it away."""
        headers = {**self.headers, name: value or ""}
        return replace(self, headers={each: text for each, text in headers.items() if each != name or value})


Ask = Callable[[Request], Awaitable[Answer]]
Tamper = Callable[[Request, Ask], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A way in which a server is wrong.

    operations: the operationIds at which it shows. says: what is wrong, as a sentence. apply: a new tamperer, with
    what it remembers.
    """

    name: str
    operations: tuple[str, ...]
    says: str
    apply: Callable[[], Tamper]


def faulty(app: ASGIApp, fault: Fault) -> ASGIApp:
    """An application that has a fault."""

    async def asked_of(scope: Scope, request: Request) -> Answer:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()]
        inner = {
            **scope,
            "method": request.method,
            "path": unquote(request.path),
            "raw_path": request.path.encode("ascii"),
            "query_string": request.query.encode("ascii"),
            "headers": headers,
        }
        messages: list[Message] = []
        bodies = iter([{"type": "http.request", "body": request.body, "more_body": False}])

        async def receive() -> Message:
            for message in bodies:
                return message
            await asyncio.Event().wait()  # the client stays
            raise AssertionError

        async def send(message: Message) -> None:
            messages.append(message)

        await app(inner, receive, send)
        start, *rest = messages
        given = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
        given.pop("content-length", None)
        return Answer(start["status"], given, b"".join(message.get("body", b"") for message in rest))

    return _tampered(fault, asked_of)


@contextlib.contextmanager
def proxied(base_url: str, fault: Fault) -> Iterator[str]:
    """The base URL of a proxy that gives a fault to the server at another one (http, no TLS)."""

    async def asked_of(scope: Scope, request: Request) -> Answer:
        target = base_url.rstrip("/") + request.path + (f"?{request.query}" if request.query else "")
        async with httpx.AsyncClient(verify=False, timeout=600, trust_env=False) as client:
            response = await client.request(
                request.method, target, content=request.body, headers=_passed_on(request.headers)
            )
        return Answer(response.status_code, _passed_on(dict(response.headers)), response.content)

    with serving(_tampered(fault, asked_of)) as url:
        yield url


def _passed_on(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items() if name.lower() not in _NOT_PASSED_ON}


def _tampered(fault: Fault, asked_of: Callable[[Scope, Request], Awaitable[Answer]]) -> ASGIApp:
    tamper = fault.apply()

    async def app(scope: Scope, receive: Receive, send: SendMessage) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        raw_path, query = scope["raw_path"].decode("ascii"), scope["query_string"].decode("ascii")
        answer = await tamper(
            Request(scope["method"], raw_path, query, headers, body), lambda request: asked_of(scope, request)
        )
        length = {} if answer.status == 204 else {"content-length": str(len(answer.body))}
        pairs = {**answer.headers, **length}
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
        await send({"type": "http.response.body", "body": answer.body})

    return app
