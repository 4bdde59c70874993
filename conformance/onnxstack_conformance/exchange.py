"""One request and what came back, with the command that repeats it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from onnxstack_conformance import streams
from onnxstack_conformance.contract import JSONL, SSE, Operation

_SECRET = ("authorization", "cookie", "key", "token", "secret")
_NOISE = ("accept-encoding", "connection", "host", "user-agent", "content-length", "accept")


class Broken(AssertionError):
    """The server broke a rule. The message says how; curl and shown: the request to repeat and what it was answered.

    refusal: a request that ought to be right was answered with a 4xx, which some servers have a reason for.
    """

    def __init__(self, operation: str, message: str, curl: str = "", shown: str = "", *, refusal: bool = False) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.operation = operation
        self.curl = curl
        self.shown = shown


class Missing(Exception):
    """The server does not have this operation. The message says what it answered."""

    def __init__(self, operation: str, message: str) -> None:
        super().__init__(message)
        self.operation = operation


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer. seconds: from the request to the last byte; first_s: to the first byte of the body.

    operation: None for a request that is of none, such as one with a method that the contract does not know.
    """

    operation: Operation | None
    method: str
    url: str
    sent: Mapping[str, str]
    body: bytes | None
    status: int
    headers: Mapping[str, str]
    content: bytes
    seconds: float
    first_s: float

    def curl(self) -> str:
        """A command that repeats the request; secrets stand as variables of the shell."""
        parts = ["curl", "-sS", "-i"]
        if self.method != "GET":
            parts += ["-X", self.method]
        text = [shlex.join(parts)]
        for name, value in self.sent.items():
            if name.lower() in _NOISE:
                continue
            if any(word in name.lower() for word in _SECRET):
                text.append(f'-H "{name}: $STACK_{name.upper().replace("-", "_")}"')
            else:
                text.append("-H " + shlex.quote(f"{name}: {value}"))
        if self.body is not None:
            text.append("--data-binary " + shlex.quote(self.body.decode("utf-8", "backslashreplace")))
        return " ".join([*text, shlex.quote(self.url)])

    def shown(self, limit: int = 2000) -> str:
        """Status, media type and the beginning of the body."""
        body = self.content.decode("utf-8", "backslashreplace")
        return f"{self.status} {self.headers.get('content-type', '')}\n{body[:limit]}{'…' * (len(body) > limit)}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request of an operation, with the means to hold it to a rule."""

    operation: Operation
    exchange: Exchange

    @property
    def status(self) -> int:
        return self.exchange.status

    @property
    def media(self) -> str:
        return self.exchange.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def text(self) -> str:
        return self.exchange.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON; the rule is broken where it is none."""
        try:
            return json.loads(self.exchange.content)
        except ValueError as error:
            self.wrong(f"the body is no JSON: {error}")

    def events(self) -> list[Any]:
        """The events of a stream."""
        try:
            return streams.events(self.text)
        except streams.Unreadable as error:
            self.wrong(str(error))

    def lines(self) -> list[Any]:
        """The values of JSON lines."""
        try:
            return streams.lines(self.text)
        except streams.Unreadable as error:
            self.wrong(str(error))

    def values(self) -> list[Any]:
        """Every JSON value in the body: one, or those of the stream."""
        if self.media == SSE:
            return self.events()
        return self.lines() if self.media == JSONL else [self.json()]

    def must(self, holds: bool, message: str) -> None:
        """Blame the operation where a rule does not hold. message: what is wrong, as a sentence about the server."""
        if not holds:
            self.wrong(message)

    def wrong(self, message: str) -> NoReturn:
        refusal = 400 <= self.status < 500
        raise Broken(self.operation.id, message, self.exchange.curl(), self.exchange.shown(), refusal=refusal)
