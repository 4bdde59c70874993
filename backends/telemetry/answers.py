"""What is kept, as objects of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backends.telemetry.records import Root, SpanRecord, moment
from generated.models import Span, SpanWithStatus, Trace


def trace_of(trace_id: str, root: Root) -> Trace:
    """A trace begins and ends with its root."""
    return Trace(
        trace_id=trace_id,
        root_span_id=root.span_id,
        start_time=moment(root.start),
        end_time=None if root.end is None else moment(root.end),
    )


def span_of(record: SpanRecord, attributes: Sequence[str] | None = None) -> Span:
    """A span whose start is known.

    attributes: those to show, null where it has none of the name; all if None or empty.
    """
    return Span(**_members(record, attributes))


def span_with_status(record: SpanRecord, attributes: Sequence[str] | None = None) -> SpanWithStatus:
    """As `span_of`, with how the span ended; no status while it runs."""
    return SpanWithStatus(**_members(record, attributes), status=record.status)


def export_rows(spans: Sequence[Span], attributes: Sequence[str]) -> list[dict[str, Any]]:
    """Rows for a dataset: a column for each fact of a span and for each of the attributes. Times are ISO 8601 texts.

    An attribute that is called like a fact does not replace it.
    """
    return [
        {
            **{name: (span.attributes or {}).get(name) for name in attributes},
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "parent_span_id": span.parent_span_id,
            "name": span.name,
            "start_time": span.start_time.isoformat(),
            "end_time": None if span.end_time is None else span.end_time.isoformat(),
        }
        for span in spans
    ]


def _members(record: SpanRecord, attributes: Sequence[str] | None) -> dict[str, Any]:
    if record.start is None or record.name is None:
        raise ValueError(f"span {record.span_id!r} has not begun")
    kept = record.attributes
    return {
        "span_id": record.span_id,
        "trace_id": record.trace_id,
        "parent_span_id": record.parent,
        "name": record.name,
        "start_time": moment(record.start),
        "end_time": None if record.end is None else moment(record.end),
        "attributes": {name: kept.get(name) for name in attributes} if attributes else dict(kept),
    }
