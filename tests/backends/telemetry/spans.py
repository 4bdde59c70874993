"""Spans for tests: their names say who they are, and times are seconds after the start of 2026."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from backends.telemetry.records import SpanRecord, microseconds

START = microseconds(datetime(2026, 1, 1, tzinfo=UTC))
HOUR = 3600.0


def at(seconds: float) -> int:
    return START + int(seconds * 1e6)


def begun(
    span_id: str,
    parent: str | None = None,
    *,
    trace: str = "t",
    owner: str = "",
    start: float = 0.0,
    ttl: float = HOUR,
    **attributes: Any,
) -> SpanRecord:
    """The start of a span."""
    return SpanRecord(
        owner, trace, span_id, at(ttl), parent=parent, name=f"name of {span_id}", start=at(start), attributes=attributes
    )


def ended(
    span_id: str, *, trace: str = "t", owner: str = "", end: float = 1.0, status: Any = "ok", **attributes: Any
) -> SpanRecord:
    """The end of a span."""
    return SpanRecord(owner, trace, span_id, at(HOUR), end=at(end), status=status, attributes=attributes)
