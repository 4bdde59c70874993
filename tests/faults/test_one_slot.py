"""Faults 3, 5 and 31: callers who leave, more callers than the limits allow, many streams in which nothing happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from backends.engine.address import Endpoint
from tests.backends.engine.running import connected, stats_of
from tests.faults.conftest import STREAMS
from tests.faults.wire import (
    CHAT,
    COMPLETION,
    Answer,
    EventStream,
    ask,
    assert_problem,
    chat,
    engine_address,
    is_complete,
    metric,
)
from tests.server.processes import lines_of, status_of, until
from tests.servers import RunningServer

RUNNING, WAITING = "onnxstack_generations_running", "onnxstack_generations_waiting"
REQUESTS = "onnxstack_http_requests_running"


@pytest.fixture(autouse=True)
def nothing_is_left(one_slot_server: RunningServer) -> Iterator[None]:
    """Every test ends with an idle server that said nothing worse than a warning."""
    yield
    until(lambda: is_idle(one_slot_server), "end of all generations")
    assert not [line for line in lines_of(one_slot_server.log) if line["level"] == "error" or line.get("exception")]


def is_idle(server: RunningServer) -> bool:
    """Whether nothing runs but the scrape that asks."""
    return metric(server, RUNNING) == metric(server, WAITING) == 0 and metric(server, REQUESTS) == 1


def test_a_client_that_leaves_after_its_first_token_frees_its_slot(
    one_slot_server: RunningServer, busy: EventStream
) -> None:
    assert metric(one_slot_server, RUNNING) == 1
    with connected(Endpoint(engine_address(one_slot_server))) as connection:
        before = stats_of(connection)
        busy.close()
        until(lambda: stats_of(connection).cancelled == before.cancelled + 1, "cancellation")
        after = stats_of(connection)
        assert (after.running, after.finished) == (0, before.finished)
        assert stats_of(connection).steps == after.steps, "nothing is computed for it any more"
    answer = ask(one_slot_server, "POST", CHAT, chat("Hello", max_tokens=2))
    assert answer.status == 200, "the only slot is free again"
    assert metric(one_slot_server, RUNNING) == 0


def test_a_client_that_leaves_the_queue_is_never_served(one_slot_server: RunningServer, busy: EventStream) -> None:
    tokens = metric(one_slot_server, "onnxstack_prompt_tokens_total")
    with EventStream(one_slot_server, CHAT, chat("Hello", max_tokens=2, stream=True)) as waiting:
        waiting.first_event()
        until(lambda: metric(one_slot_server, WAITING) == 1, "waiting generation")
    until(lambda: metric(one_slot_server, RUNNING) == 1, "end of the waiting generation")
    busy.close()
    until(lambda: is_idle(one_slot_server), "end of the busy generation")
    assert metric(one_slot_server, "onnxstack_prompt_tokens_total") == tokens, "neither came to its end"


def test_idle_streams_are_held_up_to_the_limit_and_refused_beyond(
    one_slot_server: RunningServer, busy: EventStream
) -> None:
    body = chat("Hello", max_tokens=2, stream=True)
    with ExitStack() as streams:
        idle = [streams.enter_context(EventStream(one_slot_server, CHAT, body)) for _ in range(STREAMS - 1)]
        for stream in idle:
            assert stream.status == 200
            assert stream.first_event()["event"]["event_type"] == "start"
        assert metric(one_slot_server, "onnxstack_streams_running") == STREAMS
        assert metric(one_slot_server, WAITING) == STREAMS - 1

        # Fault 5: ten at a time, streamed and whole, while nothing can have become free.
        with ThreadPoolExecutor(10) as pool:
            refused = list(pool.map(lambda number: _try(one_slot_server, number), range(50)))
        for answer in refused:
            assert_problem(answer, 429)
            assert int(answer.headers["retry-after"]) >= 1
            assert str(STREAMS) in answer.json["detail"]
        assert metric(one_slot_server, RUNNING) == STREAMS, "refused while every one of the others still runs"

        assert ask(one_slot_server, "GET", "/v1/health").json == {"status": "OK"}
        assert ask(one_slot_server, "GET", "/v1/models").status == 200
        assert status_of(f"{one_slot_server.url}/readyz") == 200
        # What does not generate is not held up either.
        embeddings = {"model_id": "all-MiniLM-L6-v2", "contents": ["one"]}
        assert ask(one_slot_server, "POST", "/v1/inference/embeddings", embeddings).status == 200

        busy.close()
        assert is_complete(idle[0].rest()), "the first in the queue is served when the slot is free"
    assert ask(one_slot_server, "POST", CHAT, chat("Hello", max_tokens=2)).status == 200


def _try(server: RunningServer, number: int) -> Answer:
    """One more generation: a completion or a chat, a stream or not."""
    body = chat("Hello", max_tokens=2, stream=number % 2 == 0)
    if number % 4 < 2:
        body = {**body, "content": json.dumps(body.pop("messages"))}
        return ask(server, "POST", COMPLETION, body)
    return ask(server, "POST", CHAT, body)
