"""What every telemetry store keeps to: in memory, in SQLite and in PostgreSQL."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from backends.context import CallContext
from backends.ports import TelemetryStore
from backends.telemetry.attributes import bounded
from backends.telemetry.records import LogRecord, MetricRecord, moment
from backends.telemetry.tree import MAX_SPANS
from generated.models import QueryCondition
from tests.backends.store.conftest import Clock
from tests.backends.telemetry.spans import at, begun, ended

HOSTILE = ["x' OR 1=1 --", "\\'", 'a"b', "$.a", "a.b", "%", "'; DROP TABLE spans; --", "ключ", "", "a\\", "[0]", "{}"]


def condition(key: str, op: Any, value: Any) -> QueryCondition:
    return QueryCondition(key=key, op=op, value=value)


def trace_ids(store: TelemetryStore, context: CallContext, *filters: QueryCondition) -> list[str]:
    return [trace.trace_id for trace in store.traces(context, filters, (), 100, 0)]


def test_the_parts_of_a_span_become_the_same_span_in_every_order(store: TelemetryStore, context: CallContext) -> None:
    for trace_id, order in zip("abcdef", itertools.permutations(range(3)), strict=True):
        parts = [
            begun("a", trace=trace_id, x=1, both="start"),
            ended("a", trace=trace_id, y=2, both="end"),
            begun("b", "a", trace=trace_id, start=0.5),
        ]
        for position in order:
            store.write([parts[position]])
        span = store.span(context, trace_id, "a")
        assert span is not None
        assert (span.name, span.start_time, span.end_time) == ("name of a", moment(at(0)), moment(at(1)))
        assert span.attributes == {"x": 1, "y": 2, "both": "end"}
        trace = store.trace(context, trace_id)
        assert trace is not None
        assert (trace.root_span_id, trace.start_time, trace.end_time) == ("a", moment(at(0)), moment(at(1)))


def test_parts_that_arrive_in_one_batch_become_one_span(store: TelemetryStore, context: CallContext) -> None:
    store.write([ended("a", status="error"), begun("a"), begun("b", "a"), begun("a", trace="other")])
    assert store.tree(context, "b", None, None)["b"].parent_span_id == "a"
    assert {trace.trace_id for trace in store.traces(context, (), (), 9, 0)} == {"t", "other"}
    assert [span.span_id for span in store.spans(context, (), (), None)].count("a") == 2


def test_a_start_or_an_end_that_arrives_twice_changes_nothing(store: TelemetryStore, context: CallContext) -> None:
    store.write([begun("a", x=1), ended("a", y=1)])
    before = store.tree(context, "a", None, None)
    store.write([begun("a", start=7, x=2)])
    store.write([ended("a", end=9, status="error", y=2)])
    assert store.tree(context, "a", None, None) == before


def test_a_span_shows_when_its_start_has_arrived(store: TelemetryStore, context: CallContext) -> None:
    store.write([ended("a")])
    assert store.span(context, "t", "a") is None
    assert store.trace(context, "t") is None
    assert store.traces(context, (), (), 9, 0) == []
    assert store.spans(context, (), (), None) == []
    assert store.tree(context, "a", None, None) == {}


def test_a_trace_whose_first_parent_is_elsewhere_has_its_earliest_span_as_root(
    store: TelemetryStore, context: CallContext
) -> None:
    store.write([begun("late", "early", start=2)])
    store.write([begun("early", "of the caller", start=1)])
    trace = store.trace(context, "t")
    assert trace is not None and trace.root_span_id == "early"
    store.write([begun("of the caller", start=1.5)])
    trace = store.trace(context, "t")
    assert trace is not None and trace.root_span_id == "of the caller"


TYPED: list[tuple[str, Any, Any, bool]] = [
    ("eq", 3, 3, True),
    ("eq", 3, 3.0, True),
    ("eq", 3, "3", False),
    ("eq", "3", 3, False),
    ("eq", True, True, True),
    ("eq", True, 1, False),
    ("eq", 1, True, False),
    ("eq", None, None, True),
    ("eq", "x", "x", True),
    ("eq", "é\"'", "é\"'", True),
    ("eq", ["é", 1], ["é", 1], True),
    ("eq", {"b": 1, "a": [None]}, {"a": [None], "b": 1}, True),
    ("eq", {"a": 1}, {"a": 2}, False),
    ("ne", 3, 4, True),
    ("ne", 3, 3, False),
    ("ne", 3, "3", True),
    ("ne", None, "x", True),
    ("gt", 10, 9, True),
    ("gt", 10, 9.5, True),
    ("gt", 9, 10, False),
    ("gt", "10", "9", False),
    ("gt", "b", "a", True),
    ("gt", "é", "z", True),
    ("gt", "a", "B", True),
    ("gt", 10, "9", False),
    ("gt", "x", 1, False),
    ("gt", True, 0, False),
    ("gt", 1, None, False),
    ("lt", 9, 10, True),
    ("lt", -1.5, -1, True),
    ("lt", 9, 9, False),
    ("lt", "a", "b", True),
    ("lt", ["a"], ["b"], False),
    ("eq", 2**70, 2**70, True),
    ("gt", 1, -(10**400), False),
    ("lt", 1, float("inf"), False),
]


def test_values_compare_by_their_types(store: TelemetryStore, context: CallContext) -> None:
    store.write(
        [
            replace(begun("a", trace=str(row)), attributes=bounded({"k": kept}))
            for row, (_, kept, _, _) in enumerate(TYPED)
        ]
    )
    for row, (op, kept, value, expected) in enumerate(TYPED):
        found = str(row) in trace_ids(store, context, condition("k", op, value))
        assert found is expected, f"{kept!r} {op} {value!r}"


def test_a_missing_attribute_never_matches(store: TelemetryStore, context: CallContext) -> None:
    store.write([begun("a", other=1)])
    for op, value in itertools.product(("eq", "ne", "gt", "lt"), (1, "x", None, True, [], {})):
        assert trace_ids(store, context, condition("k", op, value)) == []


def test_all_conditions_must_hold_for_one_span(store: TelemetryStore, context: CallContext) -> None:
    store.write([begun("a", x=1, y=1), begun("b", "a", x=2)])
    assert trace_ids(store, context, condition("x", "eq", 1), condition("y", "eq", 1)) == ["t"]
    assert trace_ids(store, context, condition("x", "eq", 2), condition("y", "eq", 1)) == []


def test_hostile_texts_are_names_and_values_like_any_other(store: TelemetryStore, context: CallContext) -> None:
    """Fault 19."""
    store.write([replace(begun("a", trace=f"t{text}"), attributes={text: text}) for text in HOSTILE])
    store.write([begun("b", trace="u", k="v")])
    for text in HOSTILE:
        for op, expected in (("eq", [f"t{text}"]), ("ne", []), ("gt", []), ("lt", [])):
            assert trace_ids(store, context, condition(text, op, text)) == expected
        assert trace_ids(store, context, condition("k", "eq", text)) == []
        assert [span.trace_id for span in store.spans(context, (), (text,), None)] == [f"t{text}"]
        assert store.trace(context, text) is None
        assert store.span(context, "u", text) is None
        assert store.tree(context, text, None, None) == {}
        found = store.trace(context, f"t{text}")
        assert found is not None and found.root_span_id == "a"
    assert len(store.traces(context, (), (), 99, 0)) == len(HOSTILE) + 1


def test_traces_come_newest_first_or_as_they_are_ordered_in_pages(store: TelemetryStore, context: CallContext) -> None:
    store.write([begun("r", trace=trace, start=start) for trace, start in (("a", 2), ("b", 3), ("c", 1))])
    store.write([ended("r", trace="a", end=9), ended("r", trace="c", end=9)])

    def ordered(*order: tuple[str, bool], limit: int = 9, offset: int = 0) -> str:
        return "".join(trace.trace_id for trace in store.traces(context, (), order, limit, offset))

    assert ordered() == "bac"
    assert ordered(("start_time", False)) == "cab"
    assert ordered(("trace_id", True)) == "cba"
    assert ordered(("end_time", False), ("start_time", False)) == "cab", "unfinished ones are last"
    assert ordered(("end_time", True), ("trace_id", True)) == "cab"
    assert ordered(("trace_id", False), limit=1, offset=1) == "b"
    assert ordered(offset=5) == ""


def test_a_tree_has_depths_in_order_and_the_attributes_asked_for(store: TelemetryStore, context: CallContext) -> None:
    store.write([begun("r"), begun("y", "r", start=2), begun("x", "r", start=1, k=1), begun("z", "x", start=3)])
    assert list(store.tree(context, "r", None, None)) == ["r", "x", "y", "z"]
    assert list(store.tree(context, "r", None, 2)) == ["r", "x", "y"]
    assert list(store.tree(context, "x", None, None)) == ["x", "z"]
    for least in (1, 0, -1, -(2**63)):
        assert list(store.tree(context, "r", None, least)) == ["r"]
    assert store.tree(context, "x", ["k", "missing"], 1)["x"].attributes == {"k": 1, "missing": None}
    assert store.tree(context, "x", [], 1)["x"].attributes == {"k": 1}
    store.write([ended("x", status="error")])
    tree = store.tree(context, "r", None, None)
    assert (tree["r"].status, tree["x"].status) == (None, "error")


def test_a_tree_with_parents_in_a_circle_ends(store: TelemetryStore, context: CallContext) -> None:
    store.write([begun("a", "c"), begun("b", "a"), begun("c", "b"), begun("self", "self")])
    assert list(store.tree(context, "a", None, None)) == ["a", "b", "c"]
    assert list(store.tree(context, "self", None, None)) == ["self"]
    assert {span.span_id for span in store.spans(context, (), (), None)} == {"a", "b", "c", "self"}
    assert store.spans(context, (), (), 3) == []


def test_spans_are_those_with_all_attributes_of_the_traces_that_match(
    store: TelemetryStore, context: CallContext
) -> None:
    store.write([begun("turn", trace="old", session="s")])
    store.write([begun("turn", session="s", start=5)])
    store.write([begun("step", "turn", start=6, input=["{}"], output="x", more=1)])
    store.write([begun("half", "turn", start=7, input=["{}"]), begun("null", "turn", input=None, output="x")])
    store.write([begun("other", trace="u", input=["{}"], output="x")])
    session = condition("session", "eq", "s")
    found = store.spans(context, [session], ["input", "output"], None)
    assert [(span.trace_id, span.span_id, span.attributes) for span in found] == [
        ("t", "step", {"input": ["{}"], "output": "x"})
    ]
    assert [span.span_id for span in store.spans(context, [session], (), 1)] == ["turn", "turn"]
    assert [span.trace_id for span in store.spans(context, [session], (), 1)] == ["t", "old"]
    assert len(store.spans(context, [session], (), None)) == 5


def test_every_key_sees_what_has_its_owner_and_nothing_else(store: TelemetryStore, context: CallContext) -> None:
    alice, bob = CallContext("r", owner="alice"), CallContext("r", owner="bob")
    store.write(
        [begun("a", owner="alice", k="alice"), begun("b", owner="bob", trace="t", k="bob"), begun("c", k="all")]
    )
    for caller, own in ((alice, "a"), (bob, "b"), (context, "c")):
        trace = store.trace(caller, "t")
        assert trace is not None and trace.root_span_id == own
        for other in {"a", "b", "c"} - {own}:
            assert store.span(caller, "t", other) is None
            assert store.tree(caller, other, None, None) == {}
        assert list(store.tree(caller, own, None, None)) == [own]
        assert [span.span_id for span in store.spans(caller, (), ("k",), None)] == [own]
        assert [found.root_span_id for found in store.traces(caller, (), (), 9, 0)] == [own]
    assert trace_ids(store, alice, condition("k", "eq", "bob")) == []


def test_what_has_expired_is_gone_at_once_and_swept_later(
    store: TelemetryStore, context: CallContext, clock: Clock
) -> None:
    store.write([begun("short", trace="short", ttl=60), begun("long", trace="long", ttl=600)])
    store.write(
        [LogRecord("", "t", "s", at(60), at(0), "m", "info"), MetricRecord("", "t", "s", at(60), 0, "m", 1, "s")]
    )
    clock.pass_time(seconds=61)
    assert trace_ids(store, context) == ["long"]
    assert store.trace(context, "short") is None
    assert store.span(context, "short", "short") is None
    assert store.tree(context, "short", None, None) == {}
    assert [span.span_id for span in store.spans(context, (), (), None)] == ["long"]
    assert store.sweep(1000) >= 3
    assert store.sweep(1000) == 0
    assert trace_ids(store, context) == ["long"]


def test_a_later_ttl_of_a_part_keeps_the_whole(store: TelemetryStore, context: CallContext, clock: Clock) -> None:
    store.write([begun("a", ttl=60)])
    store.write([ended("a")])
    clock.pass_time(seconds=61)
    store.sweep(1000)
    assert trace_ids(store, context) == ["t"] and store.span(context, "t", "a") is not None


def test_no_more_rows_stay_than_asked_for_and_the_newest_do(store: TelemetryStore, context: CallContext) -> None:
    for number in range(30):
        store.write([begun("r", trace=f"t{number}", start=number)])
    store.sweep(10)
    assert trace_ids(store, context) == [f"t{number}" for number in range(29, 19, -1)]
    assert len(store.spans(context, (), (), None)) == 10


def test_one_answer_holds_a_bounded_number_of_spans(store: TelemetryStore, context: CallContext) -> None:
    store.write([begun("r")])
    for first in range(0, MAX_SPANS + 5, 500):
        store.write([begun(f"s{number}", "r", start=1) for number in range(first, min(first + 500, MAX_SPANS + 5))])
    assert len(store.spans(context, (), (), None)) == MAX_SPANS
    assert len(store.tree(context, "r", None, None)) == MAX_SPANS
    assert list(store.tree(context, f"s{MAX_SPANS + 4}", None, None)) == [f"s{MAX_SPANS + 4}"]
