"""The telemetry API: what clients log becomes records, what they ask becomes queries of the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from backends.context import CallContext
from backends.errors import BadRequest, NotFound
from backends.ports import TelemetryStore
from backends.providers import Providers
from backends.telemetry.attributes import bounded
from backends.telemetry.recorder import SpanRecorder
from backends.telemetry.records import LogRecord, MetricRecord, Record, SpanRecord, microseconds
from generated.models import (
    LogEventRequest,
    MetricEvent,
    QueryCondition,
    Span,
    SpanStartPayload,
    SpanWithStatus,
    Trace,
    UnstructuredLogEvent,
)

MAX_ID = 256
"""Characters of a trace id or a span id."""
MAX_NAME = 1024
"""Characters of a span's name, a metric's name or unit; a longer one is cut."""
MAX_MESSAGE = 64 * 1024
"""Characters of a log line; a longer one is cut."""
MAX_TRACES = 1000
"""Traces of one answer."""
MAX_TTL_S = 3_153_600_000
"""A hundred years, which every calendar can hold; a longer ttl is as good."""
MAX_FILTERS = 32
"""Conditions, and attributes to return, of one query."""
_FLUSH_MS = 1000
COLUMNS = ("trace_id", "root_span_id", "start_time", "end_time")
"""Of a trace: what traces can be ordered by."""


class Telemetry:
    """The seven operations, over the provider of the telemetry API. recorder: whose spans a query waits for."""

    def __init__(
        self, providers: Providers, recorder: SpanRecorder | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._providers = providers
        self._recorder = recorder
        self._now = now

    def close(self) -> None:
        """End the recorder."""
        if self._recorder is not None:
            self._recorder.shutdown()

    def log(self, context: CallContext, request: LogEventRequest) -> None:
        """Keep an event; durable on return. Raises BadRequest, NoProvider, Unavailable, StorageFull."""
        expires = int((self._now() + min(request.ttl_seconds, MAX_TTL_S)) * 1e6)
        self._providers.telemetry().write([_record(context.owner, request, expires)])

    def traces(
        self,
        context: CallContext,
        filters: Sequence[QueryCondition] | None,
        order_by: Sequence[str] | None,
        limit: int,
        offset: int,
    ) -> list[Trace]:
        """At most `MAX_TRACES` traces with a span that meets all filters. Raises BadRequest, NoProvider."""
        _check_count("attribute_filters", filters)
        order = [_column(text) for text in order_by or () if text]
        return self._written().traces(context, filters or (), order, min(limit, MAX_TRACES), offset)

    def trace(self, context: CallContext, trace_id: str) -> Trace:
        """Raises NotFound, NoProvider."""
        found = self._written().trace(context, trace_id)
        if found is None:
            raise NotFound(f"there is no trace {trace_id!r}")
        return found

    def span(self, context: CallContext, trace_id: str, span_id: str) -> Span:
        """Raises NotFound, NoProvider."""
        found = self._written().span(context, trace_id, span_id)
        if found is None:
            raise NotFound(f"there is no span {span_id!r} in trace {trace_id!r}")
        return found

    def tree(
        self, context: CallContext, span_id: str, attributes: Sequence[str] | None, max_depth: int | None
    ) -> dict[str, SpanWithStatus]:
        """The span and what is under it. Raises NotFound, BadRequest, NoProvider."""
        _check_count("attributes_to_return", attributes)
        found = self._written().tree(context, span_id, attributes, max_depth)
        if not found:
            raise NotFound(f"there is no span {span_id!r}")
        return found

    def spans(
        self,
        context: CallContext,
        filters: Sequence[QueryCondition] | None,
        attributes: Sequence[str] | None,
        max_depth: int | None,
    ) -> list[Span]:
        """The spans with all attributes, of the traces with a span that meets all filters.

        Raises:
            BadRequest, NoProvider.
        """
        _check_count("attribute_filters", filters)
        _check_count("attributes_to_return", attributes)
        return self._written().spans(context, filters or (), attributes or (), max_depth)

    def _written(self) -> TelemetryStore:
        """The store, with what this process has recorded so far: who asks after an answer finds its spans."""
        store = self._providers.telemetry()
        if self._recorder is not None:
            self._recorder.force_flush(_FLUSH_MS)
        return store


def _record(owner: str, request: LogEventRequest, expires: int) -> Record:
    event = request.event
    for member, given in (("trace_id", event.trace_id), ("span_id", event.span_id)):
        _check_id(given, f"/event/{member}")
    attributes, at = bounded(event.attributes), microseconds(event.timestamp)
    if isinstance(event, UnstructuredLogEvent):
        return LogRecord(
            owner, event.trace_id, event.span_id, expires, at, event.message[:MAX_MESSAGE], event.severity, attributes
        )
    if isinstance(event, MetricEvent):
        name, unit = event.metric[:MAX_NAME], event.unit[:MAX_NAME]
        return MetricRecord(
            owner, event.trace_id, event.span_id, expires, at, name, _value(event.value), unit, attributes
        )
    payload = event.payload
    if isinstance(payload, SpanStartPayload):
        parent = payload.parent_span_id or None  # an empty text is no parent
        if parent is not None:
            _check_id(parent, "/event/payload/parent_span_id")
        return SpanRecord(
            owner,
            event.trace_id,
            event.span_id,
            expires,
            parent=parent,
            name=payload.name[:MAX_NAME],
            start=at,
            attributes=attributes,
        )
    return SpanRecord(
        owner, event.trace_id, event.span_id, expires, end=at, status=payload.status, attributes=attributes
    )


def _value(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise BadRequest("is too large for a number of 64 bits", where="/event/value") from None


def _check_id(given: str, where: str) -> None:
    if not 1 <= len(given) <= MAX_ID:
        raise BadRequest(f"1 to {MAX_ID} characters are expected", where=where)


def _check_count(name: str, values: Sequence[object] | None) -> None:
    if values and len(values) > MAX_FILTERS:
        raise BadRequest(f"at most {MAX_FILTERS} are expected, not {len(values)}", where=f"query parameter {name}")


def _column(text: str) -> tuple[str, bool]:
    name = text.removeprefix("-")
    if name not in COLUMNS:
        known = ", ".join(COLUMNS)
        raise BadRequest(
            f"{text[:80]!r} is no column of traces; known: {known}, each with `-` in front for descending",
            where="query parameter order_by",
        )
    return name, text.startswith("-")
