"""What is told arrives as it was, and what cannot be sent harms nobody else."""

from __future__ import annotations

import math

import pytest

from backends.engine import messages
from backends.engine.messages import Answer, Failed, Result, Text, Told
from backends.errors import Overloaded, StackError
from backends.inference import Finish, TextDelta, ToolCallDelta
from generated.models import ToolCall

CALL = ToolCall(call_id="c", tool_name="t", arguments={"a": [1, None]})


@pytest.mark.parametrize(
    "event",
    [
        TextDelta("é 🎉"),
        TextDelta("", ({"a": -0.5, "b": -math.inf},)),
        ToolCallDelta("succeeded", call=CALL),
        Finish("out_of_tokens", 3, 4, 2),
    ],
    ids=str,
)
def test_events_arrive_as_they_were(event: Answer) -> None:
    told = messages.decode_reply(messages.encode_told([(7, event)]))
    assert isinstance(told, Told)
    (entry,) = told.entries
    assert not isinstance(entry, Result)
    assert (entry.call, messages.event_of(entry)) == (7, event)


def test_errors_and_results_arrive_as_they_were() -> None:
    told = messages.decode_reply(messages.encode_told([(1, Overloaded("full", retry_after_s=2.0)), (2, b"x")]))
    assert isinstance(told, Told)
    failed, result = told.entries
    assert isinstance(failed, Failed)
    error = messages.event_of(failed)
    assert isinstance(error, Overloaded)
    assert (error.message, error.retry_after_s) == ("full", 2.0)
    assert result == Result(2, b"x")


@pytest.mark.parametrize("bad", [TextDelta("\ud800"), StackError("\udfff")], ids=["text", "error"])
def test_what_cannot_be_sent_fails_its_own_call_alone(bad: Answer) -> None:
    told = messages.decode_reply(messages.encode_told([(1, TextDelta("a")), (2, bad), (3, TextDelta("b"))]))
    assert isinstance(told, Told)
    first, second, third = told.entries
    assert (first, third) == (Text(1, "a"), Text(3, "b"))
    assert isinstance(second, Failed)
    assert second.call == 2
