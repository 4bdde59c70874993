"""What a telemetry store is given, and how the pieces of one span that arrive in any order become one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from backends.telemetry.attributes import bounded

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """Microseconds since the Unix epoch; a moment without a zone is UTC."""
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def moment(us: int) -> datetime:
    """The moment of `microseconds`, in UTC."""
    return _EPOCH + us * _MICROSECOND


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """A span, or the part of one that is known. All times in microseconds since the Unix epoch.

    name, start: None until its start is known. end, status: None until its end is known. parent: None for a root.
    expires: when it may be forgotten.
    """

    owner: str
    trace_id: str
    span_id: str
    expires: int
    parent: str | None = None
    name: str | None = None
    start: int | None = None
    end: int | None = None
    status: Literal["ok", "error"] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.owner, self.trace_id, self.span_id

    def merged(self, later: SpanRecord) -> SpanRecord:
        """This record completed by a `later` arrival of the same span.

        What is known stays: a start or an end that arrives twice changes nothing. Of an attribute that start and end
        both have, the end's value counts, whichever arrived first.
        """
        starts, ends = self.name is None and later.name is not None, self.end is None and later.end is not None
        known, new = dict(self.attributes), dict(later.attributes)
        found = replace(
            self,
            expires=max(self.expires, later.expires),
            attributes=bounded({**known, **new} if ends else {**new, **known}),
        )
        if starts:
            found = replace(found, name=later.name, start=later.start, parent=later.parent)
        if ends:
            found = replace(found, end=later.end, status=later.status)
        return found


@dataclass(frozen=True, slots=True)
class LogRecord:
    """An unstructured log line within a span. time: microseconds since the Unix epoch."""

    owner: str
    trace_id: str
    span_id: str
    expires: int
    time: int
    message: str
    severity: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """One value of a metric within a span. time: microseconds since the Unix epoch."""

    owner: str
    trace_id: str
    span_id: str
    expires: int
    time: int
    metric: str
    value: float
    unit: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


Record = SpanRecord | LogRecord | MetricRecord


@dataclass(frozen=True, slots=True)
class Root:
    """The span that stands for a trace: the first without a parent, or, where none has arrived, the first of all.

    The parent of a trace's first span here may be a span of the caller, which nobody has to report.
    """

    has_parent: bool
    start: int
    span_id: str
    end: int | None

    @classmethod
    def of(cls, record: SpanRecord) -> Root | None:
        """The record as a candidate; None while its start is not known."""
        if record.start is None:
            return None
        return cls(record.parent is not None, record.start, record.span_id, record.end)

    def better(self, current: Root | None) -> bool:
        """Whether this one takes the place of `current`, which it also does as its newer state."""
        if current is None or current.span_id == self.span_id:
            return True
        return (self.has_parent, self.start, self.span_id) < (current.has_parent, current.start, current.span_id)
