"""Slots and threads."""

from __future__ import annotations

import contextvars
import threading

import pytest

from backends.errors import Overloaded, Unavailable
from generated.operations import OPERATIONS
from server.http.limits import GENERATING, Admission
from server.http.options import HttpOptions

GENERATION, WORK, SHORT = (OPERATIONS[name] for name in ("chat_completion", "embeddings", "health"))
DEADLINE_S = 20.0


@pytest.fixture
def held():
    """An admission whose calls run until the test lets them go."""
    admission = Admission(HttpOptions(worker_threads=3, stream_limit=2, short_threads=1, short_queue=1))
    release = threading.Event()
    yield admission, release
    release.set()
    admission.close()


def test_every_generating_operation_exists() -> None:
    assert set(OPERATIONS) >= GENERATING
    assert {"chat_completion", "completion", "create_turn"} <= GENERATING


def test_limits_are_tried_and_not_waited_for(held) -> None:
    admission, release = held

    def call() -> None:
        release.wait(DEADLINE_S)

    for _ in range(2):
        admission.run(GENERATION, call)
    with pytest.raises(Overloaded, match="2 generations"):
        admission.run(GENERATION, call)
    admission.run(WORK, call)
    with pytest.raises(Overloaded, match="3 calls"):
        admission.run(WORK, call)
    for _ in range(2):
        admission.run(SHORT, call)
    with pytest.raises(Overloaded, match="too many calls wait"):
        admission.run(SHORT, call)
    assert admission.running() == 5


def test_a_call_that_fails_gives_its_slots_back(held) -> None:
    admission, _ = held
    done = threading.Event()

    def failing() -> None:
        done.set()
        raise ValueError

    for _ in range(10):
        done.clear()
        admission.run(GENERATION, failing)
        assert done.wait(DEADLINE_S)
        while admission.running():
            threading.Event().wait(0.001)


def test_a_call_sees_the_context_it_was_started_in(held) -> None:
    admission, _ = held
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("here")
    seen: list[str] = []
    done = threading.Event()
    admission.run(WORK, lambda: (seen.append(variable.get()), done.set()))  # type: ignore[func-returns-value]
    assert done.wait(DEADLINE_S) and seen == ["here"]


def test_a_closed_admission_takes_no_more(held) -> None:
    admission, _ = held
    admission.close()
    with pytest.raises(Unavailable):
        admission.run(WORK, lambda: None)
    assert admission.running() == 0


def test_generations_must_leave_a_thread_for_the_rest() -> None:
    with pytest.raises(ValueError, match="must be below"):
        HttpOptions(worker_threads=4, stream_limit=4)
