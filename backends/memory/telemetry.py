"""Telemetry in memory: for tests and for servers that need not remember."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from backends.context import CallContext
from backends.telemetry.answers import span_of, span_with_status, trace_of
from backends.telemetry.filters import matches
from backends.telemetry.records import LogRecord, MetricRecord, Record, Root, SpanRecord, microseconds
from backends.telemetry.tree import MAX_SPANS, Node, below, forest
from generated.models import QueryCondition, Span, SpanWithStatus, Trace


class MemoryTelemetryStore:
    """TelemetryStore in one process; gone when it ends."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._spans: dict[tuple[str, str, str], SpanRecord] = {}  # in the order of their arrival
        self._logs: list[LogRecord] = []
        self._metrics: list[MetricRecord] = []

    def ping(self) -> None:
        return

    def close(self) -> None:
        return

    def write(self, records: Sequence[Record]) -> None:
        with self._lock:
            for record in records:
                if isinstance(record, SpanRecord):
                    known = self._spans.get(record.key)
                    self._spans[record.key] = record if known is None else known.merged(record)
                elif isinstance(record, LogRecord):
                    self._logs.append(record)
                else:
                    self._metrics.append(record)

    def traces(
        self,
        context: CallContext,
        filters: Sequence[QueryCondition],
        order: Sequence[tuple[str, bool]],
        limit: int,
        offset: int,
    ) -> list[Trace]:
        found = self._traces(context, filters)
        for name, descending in reversed(order):
            found.sort(key=lambda trace: getattr(trace, name) or datetime.min.replace(tzinfo=UTC), reverse=descending)
            found.sort(key=lambda trace: getattr(trace, name) is None)
        return found[offset : offset + limit]

    def trace(self, context: CallContext, trace_id: str) -> Trace | None:
        return next((trace for trace in self._traces(context, ()) if trace.trace_id == trace_id), None)

    def span(self, context: CallContext, trace_id: str, span_id: str) -> Span | None:
        found = [r for r in self._visible(context) if (r.trace_id, r.span_id) == (trace_id, span_id)]
        return span_of(found[0]) if found else None

    def tree(
        self, context: CallContext, span_id: str, attributes: Sequence[str] | None, max_depth: int | None
    ) -> dict[str, SpanWithStatus]:
        records = self._visible(context)
        trace_ids = [record.trace_id for record in records if record.span_id == span_id]
        within = [record for record in records if record.trace_id == trace_ids[-1]] if trace_ids else []
        chosen = below(_nodes(within), span_id, max_depth)[:MAX_SPANS]
        return {node.span_id: span_with_status(within[node.row], attributes) for node in chosen}

    def spans(
        self,
        context: CallContext,
        filters: Sequence[QueryCondition],
        attributes: Sequence[str],
        max_depth: int | None,
    ) -> list[Span]:
        records = self._visible(context)
        found: list[Span] = []
        for trace in self._traces(context, filters):
            within = [record for record in records if record.trace_id == trace.trace_id]
            chosen = [within[node.row] for node in forest(_nodes(within), max_depth)]
            found += [
                span_of(record, attributes)
                for record in chosen
                if all(record.attributes.get(name) is not None for name in attributes)
            ]
        return found[:MAX_SPANS]

    def sweep(self, max_rows: int) -> int:
        now = microseconds(self._now())
        with self._lock:
            before = len(self._spans) + len(self._logs) + len(self._metrics)
            kept = {key: record for key, record in self._spans.items() if record.expires > now}
            self._spans = dict(list(kept.items())[-max_rows:])
            self._logs = [record for record in self._logs if record.expires > now][-max_rows:]
            self._metrics = [record for record in self._metrics if record.expires > now][-max_rows:]
            return before - len(self._spans) - len(self._logs) - len(self._metrics)

    def _visible(self, context: CallContext) -> list[SpanRecord]:
        now = microseconds(self._now())
        with self._lock:
            return [
                record
                for record in self._spans.values()
                if record.owner == context.owner and record.name is not None and record.expires > now
            ]

    def _traces(self, context: CallContext, filters: Sequence[QueryCondition]) -> list[Trace]:
        """Newest first."""
        roots: dict[str, Root] = {}
        matching = set()
        for record in self._visible(context):
            root = Root.of(record)
            if root is not None and root.better(roots.get(record.trace_id)):
                roots[record.trace_id] = root
            if matches(record.attributes, filters):
                matching.add(record.trace_id)
        found = [trace_of(trace_id, root) for trace_id, root in roots.items() if trace_id in matching]
        found.reverse()
        return sorted(found, key=lambda trace: -microseconds(trace.start_time))


def _nodes(records: Iterable[SpanRecord]) -> list[Node]:
    return [Node(row, r.span_id, r.parent, r.start or 0) for row, r in enumerate(records)]
