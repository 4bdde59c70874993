"""From finished spans to the store, in batches, by a thread of its own: no request waits for it or fails by it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import StatusCode

from backends.config import TelemetrySettings
from backends.errors import Retryable, StackError, StorageFull
from backends.ports import TelemetryStore
from backends.telemetry import names
from backends.telemetry.attributes import bounded
from backends.telemetry.records import SpanRecord
from backends.telemetry.tracing import OWNER_KEY

log = logging.getLogger(__name__)

GATHER_S = 1.0
"""Seconds that a span waits for others, at most, before it is written."""
BATCH = 512
SWEEP_S = 60.0
_REPORT_S = 60.0
_CLOSE_S = 5.0


class SpanRecorder(SpanProcessor):
    """Writes spans to a store, and removes there what has expired.

    At most `settings.queue` spans wait; further ones are dropped, counted by `dropped` and named in the log. A batch
    that the store cannot take now waits for it, and with it the queue.
    """

    def __init__(
        self, store: TelemetryStore, settings: TelemetrySettings, dropped: Callable[[int], None] = lambda _: None
    ) -> None:
        self._store = store
        self._settings = settings
        self._dropped = dropped
        self._lost = 0
        self._reported = float("-inf")
        self._queue: deque[ReadableSpan | threading.Event] = deque()
        self._filled, self._hurry, self._stopping = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def on_start(self, span: Span, parent_context: otel.Context | None = None) -> None:
        """Note whose span it is."""
        owner = otel.get_value(OWNER_KEY, parent_context)
        if isinstance(owner, str) and owner:
            span.set_attribute(names.OWNER, owner)

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span; never waits and never raises."""
        if len(self._queue) >= self._settings.queue or self._stopping.is_set():
            self._drop(1)
            return
        self._queue.append(span)
        if not self._filled.is_set():
            self._filled.set()

    def force_flush(self, timeout_millis: int = 1000) -> bool:
        """Return when everything that was taken is written, or the time is over; whether it is written."""
        if not self._queue and not self._filled.is_set():
            return True
        reached = threading.Event()
        self._queue.append(reached)
        self._hurry.set()
        self._filled.set()
        return reached.wait(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Write what is left, if the store takes it, and end the thread."""
        self._stopping.set()
        self._hurry.set()
        self._filled.set()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        batch: list[ReadableSpan | threading.Event] = []
        sweep = time.monotonic()
        while True:
            self._filled.wait(max(0.0, sweep - time.monotonic()))
            if self._filled.is_set():
                self._hurry.wait(GATHER_S)
                stopping = self._stopping.is_set()
                self._hurry.clear()
                self._filled.clear()
                batch = self._write_all(batch)
                if stopping:
                    self._drop(sum(isinstance(each, ReadableSpan) for each in (*batch, *self._queue)))
                    return
                if batch:
                    self._filled.set()  # the store did not take it: again after the next gathering
            if time.monotonic() >= sweep:
                self._sweep()
                sweep = time.monotonic() + SWEEP_S

    def _write_all(self, batch: list[ReadableSpan | threading.Event]) -> list[ReadableSpan | threading.Event]:
        """Write the batch and what waits behind it; what the store did not take."""
        while True:
            while self._queue and len(batch) < BATCH:
                batch.append(self._queue.popleft())
            if not batch:
                return []
            spans = [each for each in batch if isinstance(each, ReadableSpan)]
            try:
                if spans:
                    self._store.write([record_of(span, self._settings.ttl_s) for span in spans])
            except (Retryable, StorageFull) as error:
                log.debug("spans wait for the store: %s", error)
                return batch
            except Exception:
                log.exception("%d spans could not be written", len(spans))
                self._drop(len(spans))
            for each in batch:
                if isinstance(each, threading.Event):
                    each.set()
            batch = []

    def _sweep(self) -> None:
        try:
            self._store.sweep(self._settings.max_rows)
        except StackError as error:
            log.debug("expired telemetry stays for now: %s", error)
        except Exception:
            log.exception("expired telemetry could not be removed")

    def _drop(self, count: int) -> None:
        if not count:
            return
        self._dropped(count)
        self._lost += count
        if time.monotonic() - self._reported >= _REPORT_S:
            self._reported = time.monotonic()
            log.warning("%d spans dropped: the store does not take them as fast as they come", self._lost)
            self._lost = 0


def record_of(span: ReadableSpan, ttl_s: int) -> SpanRecord:
    """A finished span as it is kept."""
    attributes: dict[str, Any] = dict(span.attributes or {})
    owner = str(attributes.pop(names.OWNER, ""))
    end = (span.end_time or 0) // 1000
    return SpanRecord(
        owner=owner,
        trace_id=f"{span.context.trace_id:032x}",
        span_id=f"{span.context.span_id:016x}",
        expires=end + ttl_s * 1_000_000,
        parent=None if span.parent is None else f"{span.parent.span_id:016x}",
        name=span.name,
        start=(span.start_time or 0) // 1000,
        end=end,
        status="error" if span.status.status_code is StatusCode.ERROR else "ok",
        attributes=bounded(attributes),
    )
