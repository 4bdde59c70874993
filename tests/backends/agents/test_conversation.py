from __future__ import annotations

from datetime import UTC, datetime

from backends.agents.conversation import joined, messages_of
from backends.agents.events import new_turn, said
from backends.agents.records import StoredTurn
from generated import models as m

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def call(call_id: str) -> m.ToolCall:
    return m.ToolCall(call_id=call_id, tool_name="lookup", arguments={})


def result(call_id: str, content: str = "known") -> m.ToolResponseMessage:
    return m.ToolResponseMessage(call_id=call_id, tool_name="lookup", content=content)


def answer(text: str, *calls: m.ToolCall) -> m.CompletionMessage:
    return m.CompletionMessage(content=text, stop_reason="end_of_turn", tool_calls=list(calls))


def inference(message: m.CompletionMessage) -> m.InferenceStep:
    return m.InferenceStep(turn_id="t", step_id="s", model_response=message)


def execution(*calls: m.ToolCall) -> m.ToolExecutionStep:
    responses = [m.ToolResponse(call_id=c.call_id, tool_name=c.tool_name, content="known") for c in calls]
    return m.ToolExecutionStep(turn_id="t", step_id="s", tool_calls=list(calls), tool_responses=responses)


def violated(level: m.ViolationLevel) -> m.ShieldCallStep:
    violation = m.SafetyViolation(violation_level=level, user_message="No.", metadata={})
    return m.ShieldCallStep(turn_id="t", step_id="s", violation=violation)


def turn(
    *messages: m.TurnInputMessage, steps: tuple[m.Step, ...] = (), output: m.CompletionMessage | None = None
) -> StoredTurn:
    made = new_turn("t", "s", list(messages), NOON)
    made.steps, made.completed_at, made.output_message = list(steps), NOON, output or said("")
    return StoredTurn(made)


ASK = m.UserMessage(content="And?")
NEW = StoredTurn(new_turn("n", "s", [ASK], NOON))


def test_instructions_come_first_and_may_be_missing() -> None:
    assert messages_of("Be kind.", [], NEW) == [m.SystemMessage(content="Be kind."), ASK]
    assert messages_of("", [], NEW) == [ASK]


def test_turns_are_told_with_calls_and_their_results() -> None:
    before = turn(
        m.UserMessage(content="Who?"),
        steps=(
            inference(answer("", call("1"), call("2"))),
            execution(call("1")),
            execution(call("2")),
            inference(answer("Ada.")),
        ),
    )
    assert messages_of("", [before], NEW) == [
        m.UserMessage(content="Who?"),
        answer("", call("1"), call("2")),
        result("1"),
        result("2"),
        answer("Ada."),
        ASK,
    ]


def test_calls_that_nobody_answered_are_left_out() -> None:
    """The official client runs the first of several calls only."""
    before = turn(m.UserMessage(content="Who?"), steps=(inference(answer("", call("1"), call("2"))),))
    new = StoredTurn(new_turn("n", "s", [result("1")], NOON))
    assert messages_of("", [before], new) == [m.UserMessage(content="Who?"), answer("", call("1")), result("1")]
    assert messages_of("", [before], NEW) == [m.UserMessage(content="Who?"), ASK]


def test_what_a_shield_stopped_is_told_as_the_refusal() -> None:
    stopped = turn(m.UserMessage(content="Who?"), steps=(violated("error"),), output=said("No."))
    assert messages_of("", [stopped], NEW)[1:-1] == [said("No.")]
    withheld = turn(m.UserMessage(content="Who?"), steps=(inference(answer("")), violated("error")), output=said("No."))
    assert messages_of("", [withheld], NEW)[1:-1] == [said("No.")]
    warned = turn(
        m.UserMessage(content="Who?"), steps=(inference(answer("Ada.")), violated("warn")), output=answer("Ada.")
    )
    assert messages_of("", [warned], NEW)[1:-1] == [answer("Ada.")]


def test_the_prompt_of_a_turn_is_the_beginning_of_that_of_the_next() -> None:
    """So that the engine finds it in its prefix cache."""
    first = turn(m.UserMessage(content="Who?"), steps=(inference(answer("Ada.")),))
    second = turn(ASK, steps=(inference(answer("A mathematician.")),))
    asked = messages_of("Be kind.", [first], NEW)
    assert messages_of("Be kind.", [first, second], NEW)[: len(asked)] == asked


def test_shields_get_several_messages_as_one() -> None:
    assert joined([ASK]) == [ASK]
    both = [m.UserMessage(content="a", context="b"), result("1", "c")]
    assert joined(both) == [m.UserMessage(content="a\n\nb\n\nc")]
