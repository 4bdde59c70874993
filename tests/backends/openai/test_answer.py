from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from backends.errors import Unavailable
from backends.inference import Finish, GenerationEvent, TextDelta, ToolCallDelta
from backends.openai.answer import AnswerReader, parse_chunk
from generated.models import ToolCall


def events_of(*choices: dict[str, Any], logprobs: int = 0) -> list[GenerationEvent]:
    """The events of chunks with one choice each; the last ends the answer."""
    ids = itertools.count()
    reader = AnswerReader(logprobs, lambda: f"new-{next(ids)}")
    events: list[GenerationEvent] = []
    for choice in (*choices, {"finish_reason": "stop"}):
        events += reader.read(parse_chunk(json.dumps({"choices": [choice]}).encode()))
    return [*events, *reader.end()]


def piece(index: int | None = None, arguments: str = "", name: str | None = None, call_id: str | None = None) -> Any:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


def calls(*pieces: Any) -> list[GenerationEvent]:
    return [e for e in events_of(*({"delta": {"tool_calls": [p]}} for p in pieces)) if isinstance(e, ToolCallDelta)]


def outcomes(events: list[GenerationEvent]) -> list[tuple[str, Any]]:
    return [
        (e.status, e.call.arguments if e.call else e.text)
        for e in events
        if isinstance(e, ToolCallDelta) and e.status in ("succeeded", "failed")
    ]


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        ('{"a": 1}', ("succeeded", {"a": 1})),
        ("", ("succeeded", {})),
        ('{"a": ', ("failed", '{"a": ')),
        ("[1]", ("failed", "[1]")),
        ('"a"', ("failed", '"a"')),
        ("[" * 100_000, ("failed", "[" * 100_000)),
    ],
    ids=["object", "none", "cut", "list", "text", "deep"],
)
def test_a_call_succeeds_with_an_object_and_fails_with_anything_else(arguments: str, outcome: Any) -> None:
    assert outcomes(calls(piece(0, arguments, "f", "a"))) == [outcome]


def test_a_call_without_a_name_fails() -> None:
    assert outcomes(calls(piece(0, "{}", None, "a"))) == [("failed", "{}")]


def test_calls_whose_pieces_are_mixed_are_told_one_after_the_other() -> None:
    events = calls(piece(0, '{"a":', "f", "x"), piece(1, '{"b":', "g", "y"), piece(0, "1}"), piece(1, "2}"))
    assert [(e.status, e.text) for e in events if isinstance(e, ToolCallDelta)] == [
        ("started", ""),
        ("in_progress", '{"a":'),
        ("in_progress", "1}"),
        ("succeeded", ""),
        ("started", ""),
        ("in_progress", '{"b":'),
        ("in_progress", "2}"),
        ("succeeded", ""),
    ]
    assert outcomes(events) == [("succeeded", {"a": 1}), ("succeeded", {"b": 2})]


def test_calls_without_numbers_begin_with_their_ids() -> None:
    events = calls(piece(None, '{"a"', "f", "x"), piece(None, ": 1}"), piece(None, "{}", "g", "y"))
    assert outcomes(events) == [("succeeded", {"a": 1}), ("succeeded", {})]


def test_calls_without_ids_get_their_own() -> None:
    events = calls(piece(0, "{}", "f"), piece(1, "{}", "f"))
    made = [e.call for e in events if isinstance(e, ToolCallDelta) and e.call]
    assert made == [ToolCall(call_id=f"new-{i}", tool_name="f", arguments={}) for i in range(2)]


def test_text_before_a_call_stays_text() -> None:
    events = events_of({"delta": {"content": "I will look.", "tool_calls": [piece(0, "{}", "f", "a")]}})
    assert events[0] == TextDelta("I will look.")
    assert outcomes(events) == [("succeeded", {})]


@pytest.mark.parametrize(
    ("reason", "stop_reason"),
    [("stop", "end_of_turn"), ("tool_calls", "end_of_turn"), ("length", "out_of_tokens"), ("eos", "end_of_turn")],
)
def test_the_reason_to_stop_is_the_contracts(reason: str, stop_reason: str) -> None:
    reader = AnswerReader(0, str)
    reader.read(parse_chunk(json.dumps({"choices": [{"finish_reason": reason}]}).encode()))
    (finish,) = reader.end()
    assert isinstance(finish, Finish) and finish.stop_reason == stop_reason


def test_an_answer_without_a_reason_to_stop_is_not_one() -> None:
    with pytest.raises(Unavailable, match="ended before its answer did"):
        AnswerReader(0, str).end()


TOP = [{"token": " b", "logprob": -0.1}, {"token": " a", "logprob": -2.5}, {"token": " c", "logprob": -3}]


def test_log_probabilities_of_chat_have_the_chosen_token_first() -> None:
    entry = {"token": " a", "logprob": -2.5, "bytes": [32, 97], "top_logprobs": TOP}
    (delta, _) = events_of({"delta": {"content": " a"}, "logprobs": {"content": [entry]}}, logprobs=2)
    assert isinstance(delta, TextDelta)
    assert [list(by_token.items()) for by_token in delta.logprobs] == [[(" a", -2.5), (" b", -0.1)]]


def test_log_probabilities_of_a_completion_are_read_in_both_forms() -> None:
    old = {"tokens": [" a"], "token_logprobs": [-2.5], "top_logprobs": [{t["token"]: t["logprob"] for t in TOP}]}
    new = {"content": [{"token": " a", "logprob": -2.5, "top_logprobs": TOP}]}
    for form in (old, new):
        assert events_of({"text": " a", "logprobs": form}, logprobs=3)[0] == TextDelta(
            " a", ({" a": -2.5, " b": -0.1, " c": -3.0},)
        )


def test_log_probabilities_without_text_are_not_lost() -> None:
    logprobs = {"content": [{"token": "x", "logprob": -1}]}
    assert events_of({"delta": {}, "logprobs": logprobs}, logprobs=1)[0] == TextDelta("", ({"x": -1.0},))
    call = events_of({"delta": {"tool_calls": [piece(0, "", "f", "a")]}, "logprobs": logprobs}, logprobs=1)[0]
    assert call == ToolCallDelta("started", logprobs=({"x": -1.0},))


def test_log_probabilities_that_nobody_asked_for_are_not_told() -> None:
    logprobs = {"content": [{"token": "x", "logprob": -1}]}
    assert events_of({"delta": {"content": "x"}, "logprobs": logprobs})[0] == TextDelta("x")
