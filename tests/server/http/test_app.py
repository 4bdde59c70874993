"""The application as a whole: opening, closing, what is not HTTP."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backends.errors import Unavailable
from generated.operations import OPERATIONS
from server.http.app import create_app, handler_of
from server.http.options import HttpOptions
from tests.server.http.conftest import Parts, serving
from tests.server.http.test_bridge import until
from tests.server.http.test_errors import assert_problem


def test_opening_and_closing_leaves_no_threads_and_no_files() -> None:
    def cycle() -> None:
        with serving() as server:
            for path in ("/livez", "/readyz", "/v1/telemetry/traces", "/openapi.json"):
                server.client.get(path)

    def held() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    cycle()
    threads, files = held()
    for _ in range(10):
        cycle()
    deadline = threading.Event()
    for _ in range(200):  # threads of a closed pool end when they notice
        if held()[0] <= threads + 2:
            break
        deadline.wait(0.05)
    assert held()[0] <= threads + 2
    assert held()[1] <= files + 2


def test_closing_twice_is_closing_once() -> None:
    app = create_app(Parts(), HttpOptions())  # type: ignore[arg-type]
    app.close()
    app.close()


def test_what_is_refused_while_draining_is_an_answer_like_every_other(serve, observed, caplog) -> None:
    server = serve(HttpOptions(cors_origins=("https://app.example.com",)), observer=observed)
    server.loop.call_soon_threadsafe(server.app.lifecycle.start_drain)
    with caplog.at_level(logging.INFO, "onnxstack.access"):
        answer = server.client.get("/v1/models", headers={"x-request-id": "mine", "origin": "https://app.example.com"})
    assert assert_problem(503, answer.headers, answer.content)["request_id"] == "mine"
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert answer.headers["retry-after"] and answer.headers["connection"] == "close"
    until(lambda: observed.requests == [("unknown", "GET", 503)])
    until(lambda: [line.status for line in caplog.records if line.name == "onnxstack.access"] == [503])


def test_a_waiting_call_that_is_ended_is_logged_with_the_503_it_got(serve, observed) -> None:
    entered, release = threading.Event(), threading.Event()

    def handler(call):
        entered.set()
        assert release.wait(20)
        raise Unavailable("released")

    server = serve(handlers={"list_models": handler}, observer=observed)
    with ThreadPoolExecutor(1) as pool:
        try:
            waiting = pool.submit(server.client.get, "/v1/models", headers={"x-request-id": "mine"})
            assert entered.wait(20)
            asyncio.run_coroutine_threadsafe(server.app.lifecycle.end_running(), server.loop).result(20)
            answer = waiting.result(20)
        finally:
            release.set()
    assert assert_problem(503, answer.headers, answer.content)["request_id"] == "mine"
    until(lambda: observed.requests == [("list_models", "GET", 503)])


def drive(scope: dict, *messages: dict) -> list[dict]:
    """What the application sends when it receives `messages`."""
    app = create_app(Parts(), HttpOptions())  # type: ignore[arg-type]
    incoming, sent = list(messages), []

    async def receive() -> dict:
        return incoming.pop(0)

    async def send(message: dict) -> None:
        sent.append(message)

    try:
        asyncio.run(app(scope, receive, send))
    finally:
        app.close()
    return sent


def test_lifespan_completes() -> None:
    sent = drive({"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_websockets_are_closed() -> None:
    assert drive({"type": "websocket"}) == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_operation_has_a_handler_in_the_package(operation) -> None:
    assert callable(handler_of(operation))
