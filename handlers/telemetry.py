"""Telemetry: `generated.api.Telemetry`."""

from __future__ import annotations

from backends.errors import NotBuilt
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
    raise NotBuilt("get_span")


def get_span_tree(
    call: Call, span_id: str, attributes_to_return: list[str] | None = None, max_depth: int | None = None
) -> QuerySpanTreeResponse:
    """GET /v1/telemetry/spans/{span_id}/tree"""
    raise NotBuilt("get_span_tree")


def get_trace(call: Call, trace_id: str) -> Trace:
    """GET /v1/telemetry/traces/{trace_id}"""
    raise NotBuilt("get_trace")


def log_event(call: Call, body: LogEventRequest) -> None:
    """POST /v1/telemetry/events"""
    raise NotBuilt("log_event")


def query_spans(
    call: Call,
    attribute_filters: list[QueryCondition] | None = None,
    attributes_to_return: list[str] | None = None,
    max_depth: int | None = None,
) -> QuerySpansResponse:
    """GET /v1/telemetry/spans"""
    raise NotBuilt("query_spans")


def query_traces(
    call: Call,
    attribute_filters: list[QueryCondition] | None = None,
    limit: int = 100,
    offset: int = 0,
    order_by: list[str] | None = None,
) -> QueryTracesResponse:
    """GET /v1/telemetry/traces"""
    raise NotBuilt("query_traces")


def save_spans_to_dataset(call: Call, body: SaveSpansToDatasetRequest) -> None:
    """POST /v1/telemetry/spans/export"""
    raise NotBuilt("save_spans_to_dataset")
