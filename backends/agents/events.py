"""The events of a turn as the contract has them."""

from __future__ import annotations

from datetime import datetime

from backends.errors import StackError
from backends.inference import TextDelta, ToolCallDelta
from generated import models as m

Event = m.AgentTurnResponseStreamChunk
Metadata = dict[str, object]


def turn_start(turn: m.Turn) -> Event:
    return _event(m.AgentTurnResponseTurnStartPayload(turn_id=turn.turn_id))


def turn_complete(turn: m.Turn) -> Event:
    return _event(m.AgentTurnResponseTurnCompletePayload(turn=turn))


def step_start(step_type: m.StepType, step_id: str, metadata: Metadata | None = None) -> Event:
    return _event(
        m.AgentTurnResponseStepStartPayload(step_type=step_type, step_id=step_id, metadata=dict(metadata or {}))
    )


def text_progress(step_id: str, text: str) -> Event:
    return _progress("inference", step_id, m.TextDelta(text=text))


def call_progress(step_type: m.StepType, step_id: str, delta: ToolCallDelta) -> Event:
    """A step of a tool call: its text, or the call when it is known."""
    call = delta.text if delta.call is None else delta.call
    return _progress(step_type, step_id, m.ToolCallDelta(tool_call=call, parse_status=delta.status))


def generated(step_id: str, delta: TextDelta | ToolCallDelta) -> Event | None:
    """What the model has just said; None while that is nothing."""
    if isinstance(delta, ToolCallDelta):
        return call_progress("inference", step_id, delta)
    return text_progress(step_id, delta.text) if delta.text else None


def step_complete(step: m.Step) -> Event:
    return _event(
        m.AgentTurnResponseStepCompletePayload(step_type=step.step_type, step_id=step.step_id, step_details=step)
    )


def shield_call(step: m.ShieldCallStep, touchpoint: str) -> tuple[Event, Event]:
    """Start and end of a step of shields. touchpoint: what they judged."""
    return step_start("shield_call", step.step_id, {"touchpoint": touchpoint}), step_complete(step)


def first_of_inference(event: Event) -> bool:
    """Whether the event is the start of an inference: then the model has taken the prompt."""
    payload = event.event.payload
    return isinstance(payload, m.AgentTurnResponseStepStartPayload) and payload.step_type == "inference"


def said(text: str, *, stop_reason: m.StopReason = "end_of_turn") -> m.CompletionMessage:
    """An assistant's message that no model made. `tool_calls` is there because clients take its length."""
    return m.CompletionMessage(content=text, stop_reason=stop_reason, tool_calls=[])


def failure(error: BaseException) -> m.TurnError:
    """Why a turn failed, as clients may know it."""
    if isinstance(error, StackError):
        return m.TurnError(code=error.code, message=error.message)
    return m.TurnError(code=StackError.code, message="the server failed in an unexpected way")


def new_turn(turn_id: str, session_id: str, messages: list[m.TurnInputMessage], started_at: datetime) -> m.Turn:
    """A turn of which nothing has been done."""
    return m.Turn(
        turn_id=turn_id,
        session_id=session_id,
        input_messages=messages,
        steps=[],
        output_message=said(""),
        output_attachments=[],
        started_at=started_at,
    )


def _progress(step_type: m.StepType, step_id: str, delta: m.ContentDelta) -> Event:
    return _event(m.AgentTurnResponseStepProgressPayload(step_type=step_type, step_id=step_id, delta=delta))


def _event(payload: m.AgentTurnResponseEventPayload) -> Event:
    return Event(event=m.AgentTurnResponseEvent(payload=payload))
