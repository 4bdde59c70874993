"""What clients of a server in trouble see: whole answers, streams to their last byte, and who serves a connection."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.server.processes import until
from tests.servers import RunningServer

LLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDER = "all-MiniLM-L6-v2"
CHAT, COMPLETION = "/v1/inference/chat-completion", "/v1/inference/completion"
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer. headers: names in lower case."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def connect(server: RunningServer) -> http.client.HTTPConnection:
    """A connection of its own."""
    host, port = server.url.removeprefix("http://").split(":")
    return http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)


def ask(
    server: RunningServer, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """One request on a connection of its own. body: JSON, or bytes as they are. Raises OSError, HTTPException."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection = connect(server)
    try:
        connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, fields, answer.read().decode())
    finally:
        connection.close()


def assert_problem(answer: Answer, *statuses: int) -> None:
    """An error in the one error shape, that shows nothing of the inside."""
    assert answer.status in statuses, f"{answer.status} {answer.text[:500]}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == answer.status
    assert set(answer.json["error"]) == {"message", "code", "type"}
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert not re.search(r"Traceback|File \"|\.py\b", answer.text)


def metric(server: RunningServer, name: str, **labels: str) -> float:
    """The sum of a metric over all of its series that have these labels."""
    total = 0.0
    for line in ask(server, "GET", "/metrics").text.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == name and all(f'{key}="{wanted}"' in series for key, wanted in labels.items()):
            total += float(value)
    return total


def model(model_id: str, **metadata: Any) -> dict[str, Any]:
    """The body that registers a model."""
    return {"model_id": model_id, "provider_model_id": LLM, "model_type": "llm", "metadata": metadata}


def chat(text: str, *, max_tokens: int, stream: bool = False) -> dict[str, Any]:
    """A greedy chat."""
    sampling = {"strategy": {"type": "greedy"}, "max_tokens": max_tokens}
    messages = [{"role": "user", "content": text}]
    return {"model_id": LLM, "messages": messages, "sampling_params": sampling, "stream": stream}


def endless(max_tokens: int) -> dict[str, Any]:
    """A streamed completion that the real model goes on with until `max_tokens`."""
    sampling = {"strategy": {"type": "greedy"}, "max_tokens": max_tokens, "repetition_penalty": 1.0}
    return {"model_id": LLM, "content": "tick tock " * 16, "sampling_params": sampling, "stream": True}


class EventStream:
    """A streamed answer of which the headers have come.

    port: of this end of the connection. cut: whether the connection ended before the answer did, known after `rest`.
    """

    def __init__(self, server: RunningServer, path: str, body: object) -> None:
        self._connection = connect(server)
        self._connection.request("POST", path, json.dumps(body).encode(), {"content-type": "application/json"})
        assert self._connection.sock is not None
        self.port = int(self._connection.sock.getsockname()[1])
        self._answer = self._connection.getresponse()
        self.status = self._answer.status
        self.headers = {name.lower(): value for name, value in self._answer.getheaders()}
        self._received = b""
        self.cut = False

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def first_event(self) -> Any:
        """The first event, waited for."""
        while not (events := _events(self._received)):
            data = self._answer.read1()
            assert data, f"the answer ended: {self.status} {self._received!r}"
            self._received += data
        return events[0]

    def rest(self) -> list[Any]:
        """All events to the end, however it comes. Fails when the last of them is not whole."""
        try:
            while data := self._answer.read1():
                self._received += data
        except (http.client.IncompleteRead, ConnectionError) as end:
            self._received += getattr(end, "partial", b"")
            self.cut = True
        finally:
            self.close()
        assert self._received.endswith(b"\n\n"), f"half an event: {self._received[-200:]!r}"
        return _events(self._received)

    def text(self) -> str:
        """The whole of an answer that is no stream."""
        return self._answer.read().decode()

    def close(self) -> None:
        """Leave."""
        self._answer.close()
        self._connection.close()


def _events(received: bytes) -> list[Any]:
    """The whole events in what was received; pings are left out. Raises ValueError for one that is no JSON."""
    blocks = received.decode().split("\n\n")[:-1]
    assert all(block.startswith(("data: ", ": ping")) for block in blocks), blocks
    return [json.loads(block.removeprefix("data: ")) for block in blocks if block.startswith("data: ")]


def is_complete(events: list[Any]) -> bool:
    """Whether a completion or a chat ended as it should."""
    last = events[-1]
    return bool(last.get("stop_reason") or last.get("event", {}).get("stop_reason"))


# Processes


def children(pid: int) -> set[int]:
    """Process ids of the children that live."""
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def command_of(pid: int) -> list[str]:
    """The command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def master_of(server: RunningServer) -> int:
    """The gunicorn that `serve` started."""
    (master,) = children(server.process.pid)
    return master


def workers_of(server: RunningServer) -> set[int]:
    """Process ids of the workers that live."""
    return {child for child in children(master_of(server)) if "gunicorn" in command_of(child)}


def keeper_of(server: RunningServer) -> int:
    """The process that keeps the only engine of the server alive."""
    (keeper,) = (child for child in children(master_of(server)) if "server.engine" in command_of(child))
    return keeper


def engine_of(server: RunningServer) -> int | None:
    """The process of the only engine of the server; None while there is none."""
    return next((child for child in children(keeper_of(server)) if "server.engine" in command_of(child)), None)


def engine_address(server: RunningServer) -> str:
    """Where the only engine of the server listens."""
    return next(part for part in command_of(keeper_of(server)) if part.startswith("ipc://"))


def ports_served_by(pid: int) -> set[int]:
    """Client ports of the TCP connections that a process holds (proc_pid_net(5), IPv4)."""
    sockets = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            sockets.add(str(file.readlink()))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].partition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in sockets}


# Load


class Work:
    """Requests that one thread sends one after the other, numbered from 0, until the block ends.

    request: number -> path and JSON body of a POST. acknowledged: numbers that were answered with 200. refused: other
    answers. lost: numbers whose connection ended without an answer.
    """

    def __init__(self, server: RunningServer, request: Callable[[int], tuple[str, object]]) -> None:
        self._server = server
        self._request = request
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0
        self.acknowledged: list[int] = []
        self.refused: list[Answer] = []
        self.lost: list[int] = []

    def __enter__(self) -> Work:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def until_acknowledged(self, more: int) -> None:
        """Return when so many more requests than now are acknowledged."""
        wanted = len(self.acknowledged) + more
        until(lambda: len(self.acknowledged) >= wanted, f"{more} acknowledged requests")

    def _run(self) -> None:
        while not self._stop.is_set():
            number, self.sent = self.sent, self.sent + 1
            path, body = self._request(number)
            try:
                answer = ask(self._server, "POST", path, body)
            except (OSError, http.client.HTTPException):
                self.lost.append(number)
                self._stop.wait(0.02)  # not a busy loop while nobody listens
                continue
            if answer.status == 200:
                self.acknowledged.append(number)
            else:
                self.refused.append(answer)


def registering(server: RunningServer, name: str) -> Work:
    """Registers the models `<name>0`, `<name>1`, ... of two kilobytes each."""
    return Work(server, lambda number: ("/v1/models", model(f"{name}{number}", text="x" * 2000)))
