"""The application as a whole: opening, closing, what is not HTTP."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from generated.operations import OPERATIONS
from server.http.app import create_app, handler_of
from server.http.options import HttpOptions
from tests.server.http.conftest import Parts, serving


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
