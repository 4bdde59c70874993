"""Facts that notebooks rely on: names of spans, and `input` and `output` of them found by the session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.config import TelemetrySettings
from backends.context import CallContext
from backends.stack import open_backends
from generated import models as m
from tests.backends.agents.conftest import Desk, call_of, desk_of
from tests.backends.resources.conftest import settings_of


@pytest.fixture(params=[True, False], ids=["content", "no content"])
def traced(request: pytest.FixtureRequest, tmp_path: Path, context: CallContext) -> Iterator[Desk]:
    telemetry = TelemetrySettings(capture_content=request.param)
    backends = open_backends(settings_of(tmp_path, "memory://").model_copy(update={"telemetry": telemetry}))
    desk = desk_of(backends, context)
    yield desk
    desk.agents.close()
    backends.close()


def spans_of(desk: Desk, session_id: str, *attributes: str) -> list[m.Span]:
    condition = m.QueryCondition(key="session_id", op="eq", value=session_id)
    return desk.backends.telemetry.spans(desk.context, [condition], list(attributes), None)


def test_a_turn_is_a_span_with_its_steps_below(traced: Desk) -> None:
    where = traced.session(toolgroups=["builtin::memory"], input_shields=["guard"])
    turn = traced.turn(where, call_of("echo", text="hello"))
    spans = {span.span_id: span for span in spans_of(traced, where[1])}
    names = sorted(span.name for span in spans.values())
    assert names == sorted(
        ["create_and_execute_turn"] + ["run_shields"] * 2 + ["inference"] * 2 + ["chat llm"] * 2 + ["tool_execution"]
    )
    (root,) = [span for span in spans.values() if span.name == "create_and_execute_turn"]
    assert root.attributes is not None
    assert (root.attributes["agent_id"], root.attributes["turn_id"]) == (where[0], turn.turn_id)
    for span in spans.values():
        parent = spans.get(span.parent_span_id or "")
        if span.name == "chat llm":
            assert parent is not None and parent.name == "inference"
        elif span is not root:
            assert parent is root


def test_what_was_said_is_in_the_spans_only_where_content_is_captured(traced: Desk) -> None:
    where = traced.session(toolgroups=["builtin::memory"], input_shields=["guard"])
    traced.turn(where, call_of("echo", text="hello"))
    captured = traced.backends.tracing.capture_content
    spans = spans_of(traced, where[1], "input", "output")
    if not captured:
        assert spans == []
        assert "hello" not in json.dumps([span.model_dump(mode="json") for span in spans_of(traced, where[1])])
        return
    inference = [span.attributes or {} for span in spans if span.name == "inference"]
    assert [json.loads(text)["role"] for text in inference[0]["input"]] == ["system", "user"]
    assert inference[1]["output"] == "content: hello tool_calls: []"
    (tool,) = [span.attributes or {} for span in spans if span.name == "tool_execution"]
    assert json.loads(tool["input"])["arguments"] == {"text": "hello"} and tool["output"] == "hello"
    assert {(span.attributes or {})["output"] for span in spans if span.name == "run_shields"} == {"no violations"}


def test_a_turn_that_fails_ends_its_spans_as_failed(traced: Desk) -> None:
    where = traced.session()
    events = traced.events(where, "Hello")
    events.close()  # type: ignore[attr-defined]
    found = spans_of(traced, where[1])
    assert {span.name for span in found} == {"create_and_execute_turn", "inference", "chat llm"}
    assert all(span.end_time is not None for span in found)
    (root,) = [span for span in found if span.name == "create_and_execute_turn"]
    assert root.attributes is not None and root.attributes["error.type"] == "Cancelled"
