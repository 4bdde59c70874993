"""Events, spans and traces."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from onnxstack_conformance.marks import rule
from onnxstack_conformance.stack import Stack

NOW = datetime.now(UTC)
SETTLES_S = 5


@dataclass(frozen=True, slots=True)
class Known:
    """A trace of this run's making: a root, its child and the child's child, each with the attribute `conformance`."""

    trace: str
    root: str
    children: tuple[str, str]
    mark: str

    @property
    def spans(self) -> set[str]:
        return {self.root, *self.children}


def event(trace: str, span: str, payload: Mapping[str, Any], attributes: Mapping[str, Any], second: int) -> Any:
    at = (NOW + timedelta(seconds=second)).isoformat()
    common = {"trace_id": trace, "span_id": span, "timestamp": at, "attributes": attributes}
    return {"event": {**common, "type": "structured_log", "payload": payload}, "ttl_seconds": 3600}


def known(stack: Stack, mark: str = "", second: int = 0) -> Known:
    """Log the events of a trace, and wait until it can be read: servers may write such things behind their answers.

    second: of its start, after that of others.
    """
    found = Known(
        secrets.token_hex(16),
        secrets.token_hex(8),
        (secrets.token_hex(8), secrets.token_hex(8)),
        mark or secrets.token_hex(6),
    )
    spans = (found.root, *found.children)
    for number, span in enumerate(spans):
        start: dict[str, Any] = {"type": "span_start", "name": f"conformance {number}"}
        if number:
            start["parent_span_id"] = spans[number - 1]
        attributes = {"conformance": found.mark, "number": number}
        stack.call("log_event", body=event(found.trace, span, start, attributes, second + number))
    for number, span in enumerate(reversed(spans)):
        end = {"type": "span_end", "status": "ok"}
        stack.call("log_event", body=event(found.trace, span, end, {}, second + 10 + number))
    for _ in stack.until(SETTLES_S):
        if stack.send("get_trace", path={"trace_id": found.trace}).status == 200:
            break
    return found


def condition(trace: Known) -> list[Mapping[str, Any]]:
    return [{"key": "conformance", "op": "eq", "value": trace.mark}]


@rule("log_event", "get_trace", source="contract: Trace")
def test_a_trace_that_was_logged_is_retrieved(stack: Stack) -> None:
    """The spans that were logged make a trace with the root span that has no parent."""
    trace = known(stack)
    found = stack.call("get_trace", path={"trace_id": trace.trace})
    got = found.json()
    found.must(got["trace_id"] == trace.trace, f"asked for {trace.trace}, got {got['trace_id']}")
    found.must(got["root_span_id"] == trace.root, f"the root is {trace.root}, retrieved is {got['root_span_id']}")


@rule("get_span", source="contract: Span")
def test_a_span_has_what_was_logged(stack: Stack) -> None:
    """A span is retrieved with its trace, parent, name and attributes."""
    trace = known(stack)
    found = stack.call("get_span", path={"trace_id": trace.trace, "span_id": trace.children[0]})
    got = found.json()
    wanted = {
        "span_id": trace.children[0],
        "trace_id": trace.trace,
        "parent_span_id": trace.root,
        "name": "conformance 1",
    }
    for member, value in wanted.items():
        found.must(got.get(member) == value, f"{member} was logged as {value!r}, and is {got.get(member)!r}")
    attributes = got.get("attributes") or {}
    found.must(attributes.get("conformance") == trace.mark, f"the attributes are {attributes}")
    found.must(got.get("end_time") is not None, "its end was logged, and the span has no end_time")


@rule("get_span_tree", source="contract: QuerySpanTreeResponse")
def test_the_tree_of_a_root_has_its_spans_and_no_other(stack: Stack) -> None:
    """The tree of a span has the span and its descendants, by their ids; another trace has nothing in it."""
    trace, other = known(stack), known(stack)
    query = {"attributes_to_return": ["conformance"], "max_depth": 10}
    found = stack.call("get_span_tree", path={"span_id": trace.root}, query=query)
    got = found.json()["data"]
    found.must(not other.spans & set(got), "the tree has a span of another trace")
    found.must(set(got) == trace.spans, f"the trace has {sorted(trace.spans)}, the tree {sorted(got)}")
    for name, span in got.items():
        found.must(span["span_id"] == name, f"the span {span['span_id']} stands under {name}")
        found.must(span["trace_id"] == trace.trace, f"the span {name} names the trace {span['trace_id']}")


@rule("get_span_tree", source="contract: max_depth; our interpretation: children may count as depth 1 or 2")
def test_max_depth_bounds_the_tree(stack: Stack) -> None:
    """A tree of depth 1 has the span, perhaps its child, and not the child's child."""
    trace = known(stack)
    found = stack.call("get_span_tree", path={"span_id": trace.root}, query={"max_depth": 1})
    got = set(found.json()["data"])
    found.must(trace.root in got, "the tree has not the span itself")
    found.must(trace.children[1] not in got, "max_depth 1, and the tree has the child of the span's child")


@rule("query_traces", source="contract: limit, offset, order_by")
def test_traces_come_in_order_and_in_pages(stack: Stack) -> None:
    """`order_by` start_time or -start_time is the order, `limit` the most that come, `offset` what is passed over."""
    first = known(stack)
    second = known(stack, first.mark, 60)
    query = {"attribute_filters": condition(first), "limit": 10, "offset": 0}
    for order, wanted in (("start_time", [first, second]), ("-start_time", [second, first])):
        found = stack.call("query_traces", query={**query, "order_by": [order]})
        got = [one["trace_id"] for one in found.json()["data"]]
        found.must(got == [trace.trace for trace in wanted], f"order_by {order}, and the traces are in another order")
        for offset, trace in enumerate(wanted):
            page = stack.call("query_traces", query={**query, "order_by": [order], "limit": 1, "offset": offset})
            got = [one["trace_id"] for one in page.json()["data"]]
            page.must(got == [trace.trace], f"limit 1 and offset {offset} of two traces give {len(got)}, or another")


@rule("query_traces", source="contract: attribute_filters, limit, offset")
def test_traces_are_found_by_an_attribute(stack: Stack) -> None:
    """The filter on an attribute finds the trace whose spans have it, and no other."""
    trace, other = known(stack), known(stack)
    query = {"attribute_filters": condition(trace), "limit": 10, "offset": 0, "order_by": ["-start_time"]}
    found = stack.call("query_traces", query=query)
    got = [one["trace_id"] for one in found.json()["data"]]
    found.must(other.trace not in got, "the filter lets another trace through")
    found.must(got == [trace.trace], f"one trace has the attribute, found are {got}")


@rule("query_spans", source="contract: attribute_filters, attributes_to_return")
def test_spans_are_found_by_an_attribute(stack: Stack) -> None:
    """The filter on an attribute finds the spans that have it, each of its own trace."""
    trace, other = known(stack), known(stack)
    query = {"attribute_filters": condition(trace), "attributes_to_return": ["conformance"], "max_depth": 10}
    found = stack.call("query_spans", query=query)
    got = {span["span_id"] for span in found.json()["data"]}
    found.must(not got & other.spans, "the filter lets a span of another trace through")
    found.must(got == trace.spans, f"the spans {sorted(trace.spans)} have the attribute, found are {sorted(got)}")


@rule("save_spans_to_dataset", source="contract: SaveSpansToDatasetRequest")
def test_spans_are_saved_as_rows(stack: Stack) -> None:
    """Spans that a filter finds become rows of a dataset that has the columns for them."""
    trace = known(stack)
    columns = ("trace_id", "span_id", "parent_span_id", "name", "start_time", "end_time", "conformance")
    name = stack.dataset([dict.fromkeys(columns, "-")])
    body = {
        "attribute_filters": condition(trace),
        "attributes_to_save": ["conformance"],
        "dataset_id": name,
        "max_depth": 10,
    }
    saved = stack.call("save_spans_to_dataset", body=body)
    rows = stack.call("get_rows_paginated", query={"dataset_id": name, "rows_in_page": -1}).json()["rows"]
    got = {row.get("span_id") for row in rows} - {"-"}
    saved.must(
        got == trace.spans, f"the spans {sorted(trace.spans)} were to be saved, the rows have {sorted(map(str, got))}"
    )


@rule("log_event", source="contract: UnstructuredLogEvent, MetricEvent")
def test_logs_and_metrics_are_taken(stack: Stack) -> None:
    """The other two kinds of events are taken."""
    common = {
        "trace_id": secrets.token_hex(16),
        "span_id": secrets.token_hex(8),
        "timestamp": NOW.isoformat(),
        "attributes": {},
    }
    log = {**common, "type": "unstructured_log", "message": "conformance", "severity": "info"}
    metric = {**common, "type": "metric", "metric": "conformance", "value": 1.5, "unit": "ms"}
    for one in (log, metric):
        stack.call("log_event", body={"event": one, "ttl_seconds": 3600})


@rule("get_trace", "get_span", "get_span_tree", source="contract: never null; our interpretation: it is not found")
def test_what_was_never_logged_is_not_found(stack: Stack) -> None:
    """An unknown trace or span gets a 4xx."""
    stack.call("query_traces", query={"limit": 1})
    trace, span = "0" * 31 + "1", "0" * 15 + "1"
    stack.refused("get_trace", "an unknown trace", path={"trace_id": trace})
    stack.refused("get_span", "an unknown span", path={"trace_id": trace, "span_id": span})
    stack.refused("get_span_tree", "an unknown span", path={"span_id": span})
