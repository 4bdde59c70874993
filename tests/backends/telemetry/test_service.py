"""The telemetry API behind the handlers: what is refused, what is cut, and rows for datasets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from backends.config import BackendSettings, ProviderSettings
from backends.context import CallContext
from backends.errors import BadRequest, NoProvider, NotFound
from backends.stack import open_backends
from backends.telemetry.answers import export_rows
from backends.telemetry.service import MAX_FILTERS, MAX_ID, MAX_NAME, Telemetry
from generated.models import LogEventRequest, QueryCondition


@pytest.fixture
def telemetry(tmp_path: Path) -> Iterator[Telemetry]:
    providers = (ProviderSettings(api="telemetry", provider_id="sql", provider_type="inline::sql"),)
    backends = open_backends(BackendSettings(data_dir=tmp_path, providers=providers))
    yield backends.telemetry
    backends.close()


def event(payload: dict[str, Any], **more: Any) -> LogEventRequest:
    common = {"trace_id": "t", "span_id": "s", "timestamp": "2026-01-01T10:00:00+02:00", "type": "structured_log"}
    return LogEventRequest.model_validate_json(json.dumps({"event": {**common, "payload": payload, **more}}))


START = {"type": "span_start", "name": "n"}


def test_times_are_in_utc_whatever_the_zone_they_came_in(telemetry: Telemetry, context: CallContext) -> None:
    telemetry.log(context, event(START))
    assert telemetry.span(context, "t", "s").start_time == datetime(2026, 1, 1, 8, tzinfo=UTC)
    telemetry.log(context, event(START, span_id="naive", timestamp="2026-01-01T10:00:00"))
    assert telemetry.span(context, "t", "naive").start_time == datetime(2026, 1, 1, 10, tzinfo=UTC)


def test_all_ids_of_the_contract_are_taken_and_too_long_ones_refused(
    telemetry: Telemetry, context: CallContext
) -> None:
    for given in ("4bf92f3577b34da6a3ce929d0e0e4736", "a/b::c d", "é" * MAX_ID):
        telemetry.log(context, event(START, trace_id=given, span_id=given))
        assert telemetry.span(context, given, given).trace_id == given
    for given in ("", "x" * (MAX_ID + 1)):  # the contract that we publish says so
        with pytest.raises(ValidationError, match="span_id"):
            event(START, span_id=given)
    with pytest.raises(BadRequest) as refused:
        telemetry.log(context, event({**START, "parent_span_id": "x" * 999}))
    assert refused.value.where == "/event/payload/parent_span_id"


def test_an_empty_parent_is_none_and_a_long_name_is_cut(telemetry: Telemetry, context: CallContext) -> None:
    telemetry.log(context, event({"type": "span_start", "name": "n" * 10**5, "parent_span_id": ""}))
    span = telemetry.span(context, "t", "s")
    assert (span.parent_span_id, len(span.name)) == (None, MAX_NAME)


def test_a_ttl_of_nothing_keeps_nothing_and_the_longest_is_no_overflow(
    telemetry: Telemetry, context: CallContext
) -> None:
    request = event(START)
    telemetry.log(context, request.model_copy(update={"ttl_seconds": 0}))
    with pytest.raises(NotFound):
        telemetry.trace(context, "t")
    telemetry.log(context, request.model_copy(update={"ttl_seconds": 2**63 - 1}))
    assert telemetry.trace(context, "t").root_span_id == "s"


def test_a_metric_that_no_number_of_64_bits_holds_is_refused(telemetry: Telemetry, context: CallContext) -> None:
    body = {"type": "metric", "trace_id": "t", "span_id": "s", "timestamp": "2026-01-01T00:00:00Z", "metric": "m"}
    good = LogEventRequest.model_validate({"event": {**body, "value": 3, "unit": "s"}})
    telemetry.log(context, good)
    with pytest.raises(BadRequest, match="64 bits"):
        telemetry.log(context, LogEventRequest.model_validate({"event": {**body, "value": 10**400, "unit": "s"}}))


@pytest.mark.parametrize("column", ["name", "-", "--start_time", "start_time; DROP TABLE traces", "seq", "owner"])
def test_traces_are_ordered_by_known_columns_only(telemetry: Telemetry, context: CallContext, column: str) -> None:
    with pytest.raises(BadRequest, match="known: trace_id, root_span_id, start_time, end_time"):
        telemetry.traces(context, None, [column], 10, 0)


def test_an_empty_name_among_the_columns_counts_for_none(telemetry: Telemetry, context: CallContext) -> None:
    assert telemetry.traces(context, None, ["", ""], 10, 0) == telemetry.traces(context, None, None, 10, 0)


def test_what_is_not_there_is_named(telemetry: Telemetry, context: CallContext) -> None:
    for ask in (
        lambda: telemetry.trace(context, "no-such"),
        lambda: telemetry.span(context, "t", "no-such"),
        lambda: telemetry.tree(context, "no-such", None, None),
    ):
        with pytest.raises(NotFound, match="no-such"):
            ask()


def test_a_query_has_a_bounded_number_of_conditions(telemetry: Telemetry, context: CallContext) -> None:
    many = [QueryCondition(key="k", op="eq", value=1)] * (MAX_FILTERS + 1)
    for ask in (
        lambda: telemetry.traces(context, many, None, 1, 0),
        lambda: telemetry.spans(context, many, None, None),
        lambda: telemetry.spans(context, None, ["k"] * (MAX_FILTERS + 1), None),
        lambda: telemetry.tree(context, "s", ["k"] * (MAX_FILTERS + 1), None),
    ):
        with pytest.raises(BadRequest, match=f"at most {MAX_FILTERS}"):
            ask()
    telemetry.log(context, event(START, attributes={"k": 1}))
    assert len(telemetry.traces(context, many[1:], None, 1, 0)) == 1


def test_rows_for_a_dataset_have_the_facts_and_the_attributes_asked_for(
    telemetry: Telemetry, context: CallContext
) -> None:
    telemetry.log(context, event(START, attributes={"input": ["q"], "output": "a", "name": "hidden"}))
    telemetry.log(context, event({"type": "span_end", "status": "ok"}, timestamp="2026-01-01T08:00:01Z"))
    spans = telemetry.spans(context, None, ["input", "output", "name"], None)
    assert export_rows(spans, ["input", "output", "name"]) == [
        {
            "trace_id": "t",
            "span_id": "s",
            "parent_span_id": None,
            "name": "n",
            "start_time": "2026-01-01T08:00:00+00:00",
            "end_time": "2026-01-01T08:00:01+00:00",
            "input": ["q"],
            "output": "a",
        }
    ]


def test_without_a_provider_it_says_so(tmp_path: Path, context: CallContext) -> None:
    backends = open_backends(BackendSettings(data_dir=tmp_path, providers=()))
    with pytest.raises(NoProvider, match="telemetry"):
        backends.telemetry.log(context, event(START))
    assert not backends.tracing.enabled
    backends.close()
