"""Spans on their way to the store: batched, bounded, and never a burden for who makes them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from backends.config import TelemetrySettings
from backends.context import CallContext
from backends.errors import Unavailable
from backends.memory.telemetry import MemoryTelemetryStore
from backends.telemetry.recorder import SpanRecorder
from backends.telemetry.records import Record
from backends.telemetry.tracing import Tracing

DEADLINE_MS = 20_000


class Gate(MemoryTelemetryStore):
    """A store whose writes wait for the test, or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.entered = threading.Event()
        self.error: Exception | None = None
        self.batches: list[int] = []

    def write(self, records: Sequence[Record]) -> None:
        self.entered.set()
        assert self.open.wait(DEADLINE_MS / 1000)
        if self.error is not None:
            raise self.error
        self.batches.append(len(records))
        super().write(records)


class Recording:
    """Tracing into a gate."""

    def __init__(self, **settings: Any) -> None:
        self.store = Gate()
        self.dropped = 0
        chosen = TelemetrySettings(**settings)
        self.tracing = Tracing(chosen)
        self.recorder = SpanRecorder(self.store, chosen, self._drop)
        self.tracing.add(self.recorder)

    def _drop(self, count: int) -> None:
        self.dropped += count

    def make(self, count: int) -> None:
        for number in range(count):
            self.tracing.start(f"s{number}").end()


def test_spans_are_written_in_batches(context: CallContext) -> None:
    recording = Recording()
    recording.store.open.set()
    recording.make(2000)
    assert recording.recorder.force_flush(DEADLINE_MS)
    assert sum(recording.store.batches) == 2000
    assert max(recording.store.batches) == 512
    assert len(recording.store.traces(context, (), (), 9999, 0)) == 2000
    recording.tracing.close()


def test_a_full_queue_drops_counts_and_says_so_and_nobody_waits(caplog: pytest.LogCaptureFixture) -> None:
    recording = Recording(queue=64)
    recording.make(1)
    assert recording.store.entered.wait(DEADLINE_MS / 1000)
    with caplog.at_level(logging.WARNING):
        recording.make(100)  # returns although the store does not
    assert recording.dropped == 100 - 64
    assert [record.message for record in caplog.records] == [
        "1 spans dropped: the store does not take them as fast as they come"
    ]
    recording.store.open.set()
    assert recording.recorder.force_flush(DEADLINE_MS)
    assert sum(recording.store.batches) == 65
    recording.tracing.close()


def test_spans_wait_while_the_store_is_away_and_are_written_when_it_is_back() -> None:
    recording = Recording()
    recording.store.open.set()
    recording.store.error = Unavailable("away")
    recording.make(3)
    assert recording.store.entered.wait(DEADLINE_MS / 1000)
    recording.store.error = None
    assert recording.recorder.force_flush(DEADLINE_MS)
    assert sum(recording.store.batches) == 3
    assert recording.dropped == 0
    recording.tracing.close()


def test_a_batch_that_no_store_takes_is_dropped_and_the_next_is_written(caplog: pytest.LogCaptureFixture) -> None:
    recording = Recording()
    recording.store.open.set()
    recording.store.error = ValueError("bad row")
    recording.make(3)
    assert recording.recorder.force_flush(DEADLINE_MS)
    assert recording.dropped == 3
    recording.store.error = None
    recording.make(1)
    assert recording.recorder.force_flush(DEADLINE_MS)
    assert recording.store.batches == [1]
    recording.tracing.close()


def test_closing_writes_what_is_left_and_ends_the_thread() -> None:
    recording = Recording()
    recording.store.open.set()
    recording.make(5)
    recording.tracing.close()
    recording.tracing.close()
    assert sum(recording.store.batches) == 5
    assert not [thread for thread in threading.enumerate() if thread is recording.recorder._thread]
    recording.make(1)
    assert recording.dropped == 0, "nothing is recorded any more"


def test_what_a_store_never_took_is_counted_at_the_end() -> None:
    recording = Recording()
    recording.store.open.set()
    recording.store.error = Unavailable("away")
    recording.make(3)
    recording.tracing.close()
    assert recording.dropped == 3


def test_spans_carry_their_owner_into_the_store_and_not_into_their_attributes(context: CallContext) -> None:
    recording = Recording()
    recording.store.open.set()
    alice = CallContext("r1", owner="alice")
    with recording.tracing.request(alice, "/route", {}) as root, recording.tracing.span("step"):
        pass
    assert recording.recorder.force_flush(DEADLINE_MS)
    spans = recording.store.spans(alice, (), (), None)
    assert [span.name for span in spans] == ["/route", "step"]
    assert spans[0].attributes == {"__root__": True, "__location__": "server", "request_id": "r1"}
    assert spans[1].attributes == {}
    assert spans[1].parent_span_id == f"{root.get_span_context().span_id:016x}"
    assert recording.store.spans(context, (), (), None) == []
    recording.tracing.close()
