"""The side of those who call, while engines come and go."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from backends.context import CallContext
from backends.engine.address import Endpoint
from backends.engine.client import EngineConnection
from backends.engine.remote import RemoteEmbedder, RemoteTextGenerator, remote_device
from backends.errors import Cancelled, DeadlineExceeded, Unavailable
from backends.generation import collect
from backends.inference import EmbedRequest, GenerateRequest, TextPrompt
from tests.backends.engine.running import RELEASE, connected, served, until_welcome
from tests.server.processes import until

SHORT = GenerateRequest("echo", TextPrompt("in short"))


def test_a_call_waits_for_an_engine_that_comes(endpoint: Endpoint) -> None:
    with connected(endpoint, release=RELEASE) as connection, ThreadPoolExecutor(2) as pool:
        generator = RemoteTextGenerator(connection)
        with pytest.raises(Unavailable, match="the engine is starting"):
            generator.ping()
        answer = pool.submit(lambda: collect(generator.generate(CallContext("x"), SHORT)).text)
        vectors = pool.submit(RemoteEmbedder(connection).embed, CallContext("x"), EmbedRequest("words", ("a",)))
        with served(endpoint):
            assert answer.result(10) == "in short"
            assert vectors.result(10).dimension == 384


def test_the_next_engine_serves_what_comes_after_the_first(endpoint: Endpoint) -> None:
    with connected(endpoint, release=RELEASE) as connection:
        generator = RemoteTextGenerator(connection)
        for _ in range(3):
            with served(endpoint):
                assert collect(generator.generate(CallContext("x"), SHORT)).text == "in short"


def until_gone(connection: EngineConnection) -> None:
    """Return when the connection knows that the engine has left."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            connection.check()
        except Unavailable:
            return
        threading.Event().wait(0.01)
    raise AssertionError("the engine is still there")


def test_without_an_engine_patience_ends_with_unavailable(endpoint: Endpoint) -> None:
    with connected(endpoint, release=RELEASE, first_patience_s=0.2) as connection:
        with pytest.raises(Unavailable, match="the engine is starting") as refusal:
            RemoteTextGenerator(connection).generate(CallContext("x"), SHORT)
        assert refusal.value.retry_after_s is not None
        assert remote_device(connection) == "unknown: the engine is starting"


def test_patience_is_shorter_once_there_was_an_engine(endpoint: Endpoint) -> None:
    with connected(endpoint, release=RELEASE, patience_s=0.2, first_patience_s=60.0) as connection:
        with served(endpoint):
            until_welcome(connection)
        until_gone(connection)
        with pytest.raises(Unavailable, match="has gone and is not back yet"):
            RemoteTextGenerator(connection).generate(CallContext("x"), SHORT)


def test_who_leaves_while_there_is_no_engine_is_let_go_at_once(endpoint: Endpoint) -> None:
    with connected(endpoint, release=RELEASE) as connection:
        context = CallContext("leaving")
        timer = threading.Timer(0.1, context.cancellation.cancel)
        timer.start()
        with pytest.raises(Cancelled):
            RemoteTextGenerator(connection).generate(context, SHORT)
        timer.join()


def test_a_deadline_ends_the_wait_for_an_engine(endpoint: Endpoint) -> None:
    with connected(endpoint, release=RELEASE) as connection, pytest.raises(DeadlineExceeded):
        RemoteTextGenerator(connection).generate(CallContext("late", deadline=time.time() + 0.2), SHORT)


def test_a_closed_connection_refuses_and_ends_who_waits(endpoint: Endpoint) -> None:
    with connected(endpoint, release=RELEASE) as connection, ThreadPoolExecutor(1) as pool:
        generator = RemoteTextGenerator(connection)
        waiting = pool.submit(generator.generate, CallContext("x"), SHORT)
        until(lambda: waiting.running(), "call")
        generator.close()
        generator.close()
        with pytest.raises(Unavailable, match="closed"):
            waiting.result(5)
        with pytest.raises(Unavailable, match="closed"):
            generator.generate(CallContext("x"), SHORT)
        with pytest.raises(Unavailable, match="closed"):
            generator.ping()
