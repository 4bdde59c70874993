"""Streams, clients that leave, clients that wait, and threads enough for the rest."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import pytest

from backends.errors import BadRequest, Unavailable
from generated import models as m
from server.http.options import HttpOptions
from tests.server.http.test_errors import assert_problem

PATH = "/v1/inference/completion"
BODY = {"model_id": "m", "content": "x", "stream": True}
DEADLINE_S = 20.0
SMALL = HttpOptions(worker_threads=6, stream_limit=3, short_threads=2, short_queue=4)


def delta(text: str) -> m.CompletionResponseStreamChunk:
    return m.CompletionResponseStreamChunk(delta=text)


def event(text: str) -> bytes:
    return f'data: {{"delta":"{text}"}}\n\n'.encode()


class Streams:
    """A completion handler whose streams are held open by the test."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.contexts: list = []
        self.closed = threading.Semaphore(0)
        self.opened = threading.Semaphore(0)

    def __call__(self, call, body) -> Iterator[m.CompletionResponseStreamChunk]:
        self.contexts.append(call.context)
        return self.stream()

    def stream(self) -> Iterator[m.CompletionResponseStreamChunk]:
        try:
            yield delta("a")
            self.opened.release()
            assert self.release.wait(DEADLINE_S)
            yield delta("b")
        finally:
            self.closed.release()


@pytest.fixture
def streams() -> Iterator[Streams]:
    streams = Streams()
    yield streams
    streams.release.set()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        pause.wait(0.005)


def open_stream(server, path: str = PATH, body: dict = BODY) -> socket.socket:
    """A stream whose first bytes have come."""
    content = json.dumps(body).encode()
    connection = server.connect()
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
    received = b""
    while event("a") not in received:
        received += connection.recv(65536)
    return connection


def test_events_go_out_one_by_one(serve, streams: Streams) -> None:
    server = serve(SMALL, handlers={"completion": streams})
    with server.client.stream("POST", PATH, json=BODY) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        chunks = answer.iter_bytes()
        assert next(chunks) == event("a"), "the first event comes while the handler is still at work"
        streams.release.set()
        assert b"".join(chunks) == event("b")


@pytest.mark.parametrize(
    ("error", "status"), [(BadRequest("no"), 400), (Unavailable("off"), 503), (KeyError("x"), 500)]
)
@pytest.mark.parametrize("lazily", [True, False])
def test_an_error_before_the_first_event_is_a_real_status(serve, error: Exception, status: int, lazily: bool) -> None:
    def stream():
        raise error
        yield

    def handler(call, body):
        if lazily:
            return stream()
        raise error

    server = serve(SMALL, handlers={"completion": handler})
    answer = server.client.post(PATH, json=BODY)
    assert_problem(status, answer.headers, answer.content)


def test_an_error_after_the_first_event_is_the_last_event(serve, observed) -> None:
    def handler(call, body):
        yield delta("a")
        raise Unavailable("the engine is gone")

    server = serve(SMALL, handlers={"completion": handler}, observer=observed)
    answer = server.client.post(PATH, json=BODY)
    assert answer.status_code == 200
    first, last, rest = answer.content.split(b"\n\n")
    assert (first + b"\n\n", rest) == (event("a"), b"")
    assert json.loads(last.removeprefix(b"data: ")) == {
        "error": {"message": "the engine is gone", "code": "unavailable", "type": "server_error"},
        "delta": "",
    }
    assert observed.streams == ["+completion", "-completion"]


def test_an_unexpected_error_in_a_stream_says_nothing_of_itself(serve) -> None:
    def handler(call, body):
        yield delta("a")
        raise RuntimeError("canary")

    answer = serve(SMALL, handlers={"completion": handler}).client.post(PATH, json=BODY)
    assert b"canary" not in answer.content and b"internal_error" in answer.content


def test_a_broken_jsonl_answer_is_seen_to_be_incomplete(serve) -> None:
    def handler(call):
        yield m.ToolDef(name="a")
        raise RuntimeError("canary")

    server = serve(SMALL, handlers={"list_runtime_tools": handler})
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        server.client.get("/v1/tool-runtime/list-tools")


def test_a_silent_stream_gets_pings_between_its_events(serve, streams: Streams) -> None:
    server = serve(replace(SMALL, ping_interval_s=0.02), handlers={"completion": streams})
    received = b""
    with server.client.stream("POST", PATH, json=BODY) as answer:
        for chunk in answer.iter_bytes():
            received += chunk
            if received.count(b": ping\n\n") >= 3:
                streams.release.set()
    pings = received.removeprefix(event("a")).removesuffix(event("b"))
    assert received.startswith(event("a")) and received.endswith(event("b"))
    assert pings == b": ping\n\n" * (len(pings) // 8)


def test_a_stream_that_is_silent_from_its_start_gets_pings_too(serve) -> None:
    release = threading.Event()

    def handler(call, body):
        assert release.wait(DEADLINE_S)
        yield delta("a")
        raise Unavailable("x")

    server = serve(replace(SMALL, ping_interval_s=0.02), handlers={"completion": handler})
    with server.client.stream("POST", PATH, json=BODY) as answer:
        chunks = answer.iter_bytes()
        assert next(chunks).startswith(b": ping\n\n")
        release.set()
        rest = b"".join(chunks)
    assert event("a") in rest and b'"unavailable"' in rest


def test_only_event_streams_get_pings(serve) -> None:
    release = threading.Event()

    def handler(call, body):
        assert release.wait(DEADLINE_S)
        return m.EmbeddingsResponse(embeddings=[[1.0]])

    server = serve(replace(SMALL, ping_interval_s=0.01), handlers={"embeddings": handler})
    threading.Timer(0.1, release.set).start()
    answer = server.client.post("/v1/inference/embeddings", json={"model_id": "m", "contents": ["x"]})
    assert answer.content == b'{"embeddings":[[1.0]]}'


def test_a_client_that_leaves_cancels_the_call_while_the_handler_waits(serve) -> None:
    cancelled = threading.Event()
    entered = threading.Event()

    def handler(call, body):
        entered.set()
        if call.context.cancellation.wait(DEADLINE_S):
            cancelled.set()
        return m.EmbeddingsResponse(embeddings=[])

    server = serve(SMALL, handlers={"embeddings": handler})
    content = b'{"model_id": "m", "contents": []}'
    with server.connect() as connection:
        head = f"POST /v1/inference/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        assert entered.wait(DEADLINE_S)
    assert cancelled.wait(DEADLINE_S)


def test_a_client_that_leaves_a_stream_closes_its_iterator_at_the_next_event(serve, streams: Streams) -> None:
    server = serve(SMALL, handlers={"completion": streams})
    open_stream(server).close()
    until(lambda: streams.contexts[0].cancellation.cancelled)
    assert not streams.closed.acquire(blocking=False), "the handler still waits for its next event"
    streams.release.set()
    assert streams.closed.acquire(timeout=DEADLINE_S)


def test_a_client_that_leaves_while_the_handler_yields_stops_it(serve) -> None:
    counted = []
    closed = threading.Event()

    def handler(call, body):
        try:
            while True:
                counted.append(1)
                yield delta("a")
        finally:
            closed.set()

    server = serve(SMALL, handlers={"completion": handler})
    open_stream(server).close()
    assert closed.wait(DEADLINE_S)


def test_a_reader_that_is_slow_slows_the_handler(serve) -> None:
    counted = []

    def handler(call, body):
        for _ in range(100_000):
            counted.append(1)
            yield delta("x" * 10_000)

    server = serve(SMALL, handlers={"completion": handler})
    content = json.dumps(BODY).encode()
    with server.connect() as connection:
        connection.sendall(
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
        )
        connection.recv(1000)
        seen = -1
        pause = threading.Event()
        while seen != len(counted):
            seen = len(counted)
            pause.wait(0.3)
    assert 0 < seen < 5_000, "a gigabyte is not kept in memory"


def test_a_reader_that_never_reads_is_cut_off(serve) -> None:
    closed = threading.Event()

    def handler(call, body):
        try:
            while True:
                yield delta("x" * 100_000)
        finally:
            closed.set()

    server = serve(replace(SMALL, write_timeout_s=0.2), handlers={"completion": handler})
    content = json.dumps(BODY).encode()
    with server.connect() as connection:
        connection.sendall(
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
        )
        assert closed.wait(DEADLINE_S)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(1 << 20):
                received = received[-100:] + data
    assert not received.endswith(b"0\r\n\r\n"), "the answer is seen to be incomplete"


def test_health_answers_while_every_stream_and_every_thread_is_taken(serve, streams: Streams) -> None:
    working = threading.Semaphore(0)

    def work(call, body):
        working.release()
        assert streams.release.wait(DEADLINE_S)
        return m.EmbeddingsResponse(embeddings=[])

    server = serve(
        SMALL,
        handlers={"completion": streams, "embeddings": work, "health": lambda call: m.HealthInfo(status="OK")},
    )
    connections = [open_stream(server) for _ in range(SMALL.stream_limit)]
    for _ in range(SMALL.worker_threads - SMALL.stream_limit):
        content = b'{"model_id": "m", "contents": []}'
        connection = server.connect()
        head = f"POST /v1/inference/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        connections.append(connection)
        assert working.acquire(timeout=DEADLINE_S)
    for path in ("/v1/health", "/livez", "/readyz"):
        assert server.client.get(path).status_code == 200
    for path, body in ((PATH, BODY), ("/v1/inference/embeddings", {"model_id": "m", "contents": []})):
        answer = server.client.post(path, json=body)
        assert_problem(429, answer.headers, answer.content)
        assert int(answer.headers["retry-after"]) >= 1 and "x-should-retry" not in answer.headers
    streams.release.set()
    for connection in connections:
        connection.close()
    until(lambda: server.client.post(PATH, json=BODY).status_code == 200)


def test_generations_beyond_the_limit_are_refused_and_their_slots_come_back(serve, streams: Streams) -> None:
    server = serve(SMALL, handlers={"completion": streams})
    connections = [open_stream(server) for _ in range(SMALL.stream_limit)]
    for stream in (True, False):
        answer = server.client.post(PATH, json={**BODY, "stream": stream})
        assert_problem(429, answer.headers, answer.content)
        assert "3 generations" in answer.json()["detail"]
    streams.release.set()
    for connection in connections:
        connection.close()
    until(lambda: server.client.post(PATH, json=BODY).status_code == 200)


def test_two_hundred_idle_streams_are_held(serve, streams: Streams) -> None:
    options = HttpOptions(worker_threads=210, stream_limit=200, short_threads=2)
    server = serve(options, handlers={"completion": streams, "health": lambda call: m.HealthInfo(status="OK")})
    connections = [open_stream(server) for _ in range(200)]
    assert server.client.post(PATH, json=BODY).status_code == 429
    assert server.client.get("/v1/health").status_code == 200
    streams.release.set()
    for connection in connections:
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += connection.recv(65536)
        assert event("b") in received
        connection.close()


def test_a_call_that_takes_too_long_is_given_up(serve) -> None:
    cancelled = threading.Event()

    def handler(call, body):
        if call.context.cancellation.wait(DEADLINE_S):
            cancelled.set()
        return m.EmbeddingsResponse(embeddings=[])

    server = serve(replace(SMALL, request_timeout_s=0.1), handlers={"embeddings": handler})
    answer = server.client.post("/v1/inference/embeddings", json={"model_id": "m", "contents": []})
    assert_problem(504, answer.headers, answer.content)
    assert answer.headers["x-should-retry"] == "false"
    assert cancelled.wait(DEADLINE_S)


def test_a_stream_that_takes_too_long_ends_with_an_error_event(serve, streams: Streams) -> None:
    server = serve(replace(SMALL, request_timeout_s=0.2), handlers={"completion": streams})
    answer = server.client.post(PATH, json=BODY)
    assert answer.content.startswith(event("a")) and b'"deadline_exceeded"' in answer.content


def test_handlers_may_stream_in_any_number_of_threads_at_once(serve) -> None:
    def handler(call, body):
        for i in range(200):
            yield delta(f"{body.content}{i}")

    server = serve(SMALL, handlers={"completion": handler})
    expected = {name: b"".join(event(f"{name}{i}") for i in range(200)) for name in "abc"}
    found: dict[str, bytes] = {}

    def ask(name: str) -> None:
        found[name] = httpx.post(server.url + PATH, json={**BODY, "content": name}, timeout=DEADLINE_S).content

    threads = [threading.Thread(target=ask, args=(name,)) for name in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
