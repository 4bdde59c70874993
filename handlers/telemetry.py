"""Telemetry: `generated.api.Telemetry`."""

from __future__ import annotations

from backends.telemetry.answers import export_rows
from generated.models import (
    LogEventRequest,
    QueryCondition,
    QuerySpansResponse,
    QuerySpanTreeResponse,
    QueryTracesResponse,
    SaveSpansToDatasetRequest,
    Span,
    Trace,
)
from handlers.call import Call


def get_span(call: Call, trace_id: str, span_id: str) -> Span:
    """GET /v1/telemetry/traces/{trace_id}/spans/{span_id}"""
    return call.backends.telemetry.span(call.context, trace_id, span_id)


def get_span_tree(
    call: Call, span_id: str, attributes_to_return: list[str] | None = None, max_depth: int | None = None
) -> QuerySpanTreeResponse:
    """GET /v1/telemetry/spans/{span_id}/tree"""
    tree = call.backends.telemetry.tree(call.context, span_id, attributes_to_return, max_depth)
    return QuerySpanTreeResponse(data=tree)


def get_trace(call: Call, trace_id: str) -> Trace:
    """GET /v1/telemetry/traces/{trace_id}"""
    return call.backends.telemetry.trace(call.context, trace_id)


def log_event(call: Call, body: LogEventRequest) -> None:
    """POST /v1/telemetry/events"""
    call.backends.telemetry.log(call.context, body)


def query_spans(
    call: Call,
    attribute_filters: list[QueryCondition] | None = None,
    attributes_to_return: list[str] | None = None,
    max_depth: int | None = None,
) -> QuerySpansResponse:
    """GET /v1/telemetry/spans"""
    spans = call.backends.telemetry.spans(call.context, attribute_filters, attributes_to_return, max_depth)
    return QuerySpansResponse(data=spans)


def query_traces(
    call: Call,
    attribute_filters: list[QueryCondition] | None = None,
    limit: int = 100,
    offset: int = 0,
    order_by: list[str] | None = None,
) -> QueryTracesResponse:
    """GET /v1/telemetry/traces"""
    traces = call.backends.telemetry.traces(call.context, attribute_filters, order_by, limit, offset)
    return QueryTracesResponse(data=traces)


def save_spans_to_dataset(call: Call, body: SaveSpansToDatasetRequest) -> None:
    """POST /v1/telemetry/spans/export"""
    spans = call.backends.telemetry.spans(call.context, body.attribute_filters, body.attributes_to_save, body.max_depth)
    rows = export_rows(spans, body.attributes_to_save)
    call.backends.datasets.append(call.context, body.dataset_id, rows, where="/dataset_id")
