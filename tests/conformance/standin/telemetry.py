"""Spans that clients report."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any

from generated.models import (
    LogEventRequest,
    QueryCondition,
    QuerySpansResponse,
    QuerySpanTreeResponse,
    QueryTracesResponse,
    SaveSpansToDatasetRequest,
    Span,
    SpanWithStatus,
    Trace,
)
from tests.conformance.standin.data import Data
from tests.conformance.standin.wire import Refused, plain

_COLUMNS = ("trace_id", "root_span_id", "start_time", "end_time")


class Telemetry(Data):
    """Events in, traces and spans out."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: dict[tuple[str, str], SpanWithStatus] = {}

    def log_event(self, call: None, body: LogEventRequest) -> None:
        event = body.event
        if event.type != "structured_log":
            return
        key, payload = (event.trace_id, event.span_id), event.payload
        if payload.type == "span_start":
            self.spans[key] = SpanWithStatus(
                span_id=event.span_id,
                trace_id=event.trace_id,
                parent_span_id=payload.parent_span_id,
                name=payload.name,
                start_time=event.timestamp,
                attributes=event.attributes or {},
            )
        elif key in self.spans:
            attributes = (self.spans[key].attributes or {}) | (event.attributes or {})
            ended = {"end_time": event.timestamp, "status": payload.status, "attributes": attributes}
            self.spans[key] = self.spans[key].model_copy(update=ended)

    def get_span(self, call: None, trace_id: str, span_id: str) -> Span:
        if (trace_id, span_id) not in self.spans:
            raise Refused(404, f"span {span_id!r} of trace {trace_id!r} not found")
        return _span(self.spans[trace_id, span_id])

    def get_trace(self, call: None, trace_id: str) -> Trace:
        for trace in self._traces():
            if trace.trace_id == trace_id:
                return trace
        raise Refused(404, f"trace {trace_id!r} not found")

    def get_span_tree(
        self, call: None, span_id: str, attributes_to_return: list[str] | None = None, max_depth: int | None = None
    ) -> QuerySpanTreeResponse:
        roots = [span for span in self.spans.values() if span.span_id == span_id]
        if not roots:
            raise Refused(404, f"span {span_id!r} not found")
        tree = self._below(roots[-1], max_depth)
        return QuerySpanTreeResponse(data={span.span_id: _cut(span, attributes_to_return) for span in tree})

    def query_traces(
        self,
        call: None,
        attribute_filters: list[QueryCondition] | None = None,
        limit: int = 100,
        offset: int = 0,
        order_by: list[str] | None = None,
    ) -> QueryTracesResponse:
        if limit < 0 or offset < 0:
            raise Refused(400, "limit, offset: negative")
        traces = self._matching(attribute_filters)
        for column in reversed(order_by or []):
            name = column.removeprefix("-")
            if name not in _COLUMNS:
                raise Refused(400, f"order_by: {name!r} is none of {', '.join(_COLUMNS)}")
            traces.sort(key=partial(_sortable, name), reverse=column.startswith("-"))
        return QueryTracesResponse(data=traces[offset : offset + limit])

    def query_spans(
        self,
        call: None,
        attribute_filters: list[QueryCondition] | None = None,
        attributes_to_return: list[str] | None = None,
        max_depth: int | None = None,
    ) -> QuerySpansResponse:
        spans = self._found(attribute_filters, attributes_to_return, max_depth)
        return QuerySpansResponse(data=[_span(_cut(span, attributes_to_return)) for span in spans])

    def save_spans_to_dataset(self, call: None, body: SaveSpansToDatasetRequest) -> None:
        rows = self.rows_of(body.dataset_id)
        columns = list(self.datasets[body.dataset_id].dataset_schema)
        for span in self._found(body.attribute_filters, body.attributes_to_save, body.max_depth):
            saved = plain(_span(_cut(span, body.attributes_to_save)))
            saved |= saved.pop("attributes")
            rows.append({name: saved.get(name) for name in columns})

    def _found(
        self, filters: list[QueryCondition] | None, attributes: list[str] | None, max_depth: int | None
    ) -> list[SpanWithStatus]:
        """The spans with all these attributes, in the traces that the filters let through."""
        roots = [self.spans[trace.trace_id, trace.root_span_id] for trace in self._matching(filters)]
        spans = [span for root in roots for span in self._below(root, max_depth)]
        return [span for span in spans if all(_value(span, name) is not None for name in attributes or [])]

    def _matching(self, filters: list[QueryCondition] | None) -> list[Trace]:
        """Traces in which each filter holds for some span."""
        spans = list(self.spans.values())
        return [
            trace
            for trace in self._traces()
            if all(
                any(span.trace_id == trace.trace_id and _holds(span, each) for span in spans) for each in filters or []
            )
        ]

    def _traces(self) -> list[Trace]:
        by_trace: dict[str, list[SpanWithStatus]] = {}
        for span in self.spans.values():
            by_trace.setdefault(span.trace_id, []).append(span)
        traces = []
        for trace_id, spans in by_trace.items():
            root = next((span for span in spans if span.parent_span_id is None), spans[0])
            trace = Trace(
                trace_id=trace_id, root_span_id=root.span_id, start_time=root.start_time, end_time=root.end_time
            )
            traces.append(trace)
        return traces

    def _below(self, root: SpanWithStatus, max_depth: int | None) -> Iterator[SpanWithStatus]:
        """A span and those below it. max_depth: 1 is the span alone."""
        level, depth, seen = [root], 1, {root.span_id}
        while level:
            yield from level
            depth += 1
            if max_depth is not None and depth > max_depth:
                return
            parents = {span.span_id for span in level}
            spans = [span for span in self.spans.values() if span.trace_id == root.trace_id]
            level = [span for span in spans if span.parent_span_id in parents and span.span_id not in seen]
            seen |= {span.span_id for span in level}


def _value(span: SpanWithStatus, name: str) -> Any:
    return (span.attributes or {}).get(name)


def _holds(span: SpanWithStatus, condition: QueryCondition) -> bool:
    """A span without the attribute matches nothing; texts and numbers have no order among each other."""
    value, wanted = _value(span, condition.key), condition.value
    if value is None:
        return False
    if condition.op in ("eq", "ne"):
        return bool(value == wanted) == (condition.op == "eq")
    numbers = all(isinstance(each, int | float) for each in (value, wanted))
    if not numbers and not (isinstance(value, str) and isinstance(wanted, str)):
        return False
    return bool(value > wanted if condition.op == "gt" else value < wanted)


def _cut(span: SpanWithStatus, names: list[str] | None) -> SpanWithStatus:
    if not names:
        return span
    attributes = {name: value for name, value in (span.attributes or {}).items() if name in names}
    return span.model_copy(update={"attributes": attributes})


def _span(span: SpanWithStatus) -> Span:
    return Span.model_validate(span.model_dump(exclude={"status"}))


def _sortable(column: str, trace: Trace) -> tuple[bool, str | float]:
    value: datetime | str | None = getattr(trace, column)
    return value is not None, value.timestamp() if isinstance(value, datetime) else value or ""
