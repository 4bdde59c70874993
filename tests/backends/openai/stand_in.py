"""An upstream for tests: a real HTTP server whose every answer a test scripts, down to bytes, silence and resets."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any

DEADLINE_S = 20.0
SSE = "text/event-stream"

Answer = Callable[["Connection"], None]


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came. headers: by lower-case name."""

    path: str
    headers: dict[str, str]
    body: Any


class Connection(BaseHTTPRequestHandler):
    """One request, `asked`, and the socket to answer it on."""

    protocol_version = "HTTP/1.1"
    server: _Server
    asked: Received

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def begin(self, status: int = 200, media: str = SSE, **headers: str) -> None:
        """Status and headers of an answer that ends with its connection."""
        self.send_response(status)
        self.send_header("content-type", media)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

    def write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()

    def wait_until_left(self) -> None:
        """Return when the other side has closed the connection."""
        self.connection.settimeout(DEADLINE_S)
        if self.connection.recv(1) == b"":
            self.server.stand_in.left.set()

    def reset(self) -> None:
        """Close with RST, as a machine that dies does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _answer(self) -> None:
        stand_in = self.server.stand_in
        size = int(self.headers.get("content-length") or 0)
        data = self.rfile.read(size)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.asked = Received(self.path, headers, json.loads(data) if data else None)
        stand_in.received.append(self.asked)
        if self.path == "/v1/models":
            answer = stand_in.listing
        else:
            answer = stand_in.answers.pop(0) if len(stand_in.answers) > 1 else stand_in.answers[0]
        try:
            answer(self)
        except OSError:
            self.close_connection = True  # the client has gone


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    stand_in: StandIn

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what these tests are about."""


@dataclass
class StandIn:
    """The upstream at `url`. answers: for requests beside /models, in order; the last one repeats.

    left: set when a client closed the connection on which the stand-in waits for that.
    """

    url: str
    listing: Answer
    answers: list[Answer] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    reached: SimpleQueue[None] = field(default_factory=SimpleQueue)

    def script(self, *answers: Answer) -> None:
        self.answers[:] = answers

    @property
    def asked(self) -> list[Received]:
        """The requests beside those that look at the models."""
        return [request for request in self.received if request.path != "/v1/models"]


def document(value: Any, status: int = 200, **headers: str) -> Answer:
    """A JSON answer."""
    data = json.dumps(value).encode()

    def answer(connection: Connection) -> None:
        connection.send_response(status)
        connection.send_header("content-type", "application/json")
        connection.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            connection.send_header(name.replace("_", "-"), value)
        connection.end_headers()
        connection.write(data)

    return answer


def event(value: Any) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def chat(*deltas: Any, finish: str | None = "stop", usage: Any = None) -> list[bytes]:
    """Chunks of a chat answer: texts or whole deltas."""
    chunks = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}]
    for delta in deltas:
        whole = {"content": delta} if isinstance(delta, str) else delta
        chunks.append({"choices": [{"index": 0, "delta": whole, "finish_reason": None}]})
    if finish:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if usage:
        chunks.append({"choices": [], "usage": usage})
    return [event(chunk) for chunk in chunks]


def stream(*parts: bytes, done: bool = True, then: Answer | None = None) -> Answer:
    """A stream of events; `then` goes on with the connection."""

    def answer(connection: Connection) -> None:
        connection.begin()
        for part in parts:
            connection.write(part)
        if then is not None:
            then(connection)
        elif done:
            connection.write(b"data: [DONE]\n\n")

    return answer


def kept(*parts: bytes) -> Answer:
    """A stream whose connection stays open for the next request."""

    def answer(connection: Connection) -> None:
        connection.send_response(200)
        connection.send_header("content-type", SSE)
        connection.send_header("transfer-encoding", "chunked")
        connection.end_headers()
        for part in (*parts, b"data: [DONE]\n\n"):
            connection.write(b"%x\r\n%s\r\n" % (len(part), part))
        connection.write(b"0\r\n\r\n")

    return answer


def hang(connection: Connection) -> None:
    """Say nothing until the other side leaves."""
    connection.server.stand_in.reached.put(None)
    connection.wait_until_left()


def reset(connection: Connection) -> None:
    connection.reset()


def endless(part: bytes) -> Answer:
    """The same bytes until the other side leaves."""

    def answer(connection: Connection) -> None:
        try:
            while True:
                connection.write(part)
        except OSError:
            connection.server.stand_in.left.set()
            raise

    return answer


def listing(*models: str, **lengths: int) -> Answer:
    """/models with these, and those with a length as vLLM tells it."""
    entries = [{"id": name, "object": "model"} for name in models]
    entries += [{"id": name, "object": "model", "max_model_len": length} for name, length in lengths.items()]
    return document({"object": "list", "data": entries})


@contextmanager
def serving() -> Iterator[StandIn]:
    """A stand-in with the model `m` that answers every chat with `Hello there.`"""
    server = _Server(("127.0.0.1", 0), Connection)
    server.stand_in = StandIn(f"http://127.0.0.1:{server.server_port}/v1", listing("m"))
    server.stand_in.script(stream(*chat("Hello", " there.", usage={"prompt_tokens": 3, "completion_tokens": 2})))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
