"""The chunks of a streamed answer as the port's events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from backends.errors import Unavailable
from backends.inference import Finish, GenerationEvent, StopReason, TextDelta, ToolCallDelta
from backends.openai import protocol
from generated.models import ToolCall

_FAILED = ("abort", "error")
"""Reasons of vLLM for an answer that is not one."""


class AnswerReader:
    """Reads one answer. logprobs: tokens to tell for each one; new_id: for calls that come without an id."""

    def __init__(self, logprobs: int, new_id: Callable[[], str]) -> None:
        self._logprobs = logprobs
        self._calls = _Calls(new_id)
        self._reason: str | None = None
        self._usage = protocol.Usage()

    @property
    def complete(self) -> bool:
        """Whether the upstream has said why the answer ends: what goes wrong later costs nothing but the usage."""
        return self._reason is not None

    def read(self, chunk: protocol.Chunk) -> list[GenerationEvent]:
        """The events of a chunk. Raises Unavailable: the upstream has given the answer up."""
        if chunk.usage is not None:
            self._usage = chunk.usage
        events: list[GenerationEvent] = []
        for choice in chunk.choices or ():
            events += self._choice(choice)
            if choice.finish_reason in _FAILED:
                raise Unavailable(f"the upstream gave the answer up: finish_reason {choice.finish_reason}")
            self._reason = choice.finish_reason or self._reason
        return events

    def end(self) -> list[GenerationEvent]:
        """What is left, and the last event. Raises Unavailable: the stream has ended before the answer did."""
        if self._reason is None:
            raise Unavailable("the upstream's stream ended before its answer did")
        usage, details = self._usage, self._usage.prompt_tokens_details
        stop_reason: StopReason = "out_of_tokens" if self._reason == "length" else "end_of_turn"
        cached = details.cached_tokens if details is not None else None
        return [
            *self._calls.end(),
            Finish(stop_reason, usage.prompt_tokens, usage.completion_tokens, cached or 0),
        ]

    def _choice(self, choice: protocol.Choice) -> list[GenerationEvent]:
        delta = choice.delta or protocol.Delta()
        text = choice.text or delta.content or delta.refusal or ""
        logprobs = tuple(_maps(choice.logprobs, self._logprobs)) if self._logprobs and choice.logprobs else ()
        calls = [event for piece in delta.tool_calls or () for event in self._calls.feed(piece)]
        if text or (logprobs and not calls):
            return [TextDelta(text, logprobs), *calls]
        if logprobs:
            calls[0] = replace(calls[0], logprobs=logprobs)
        return [*calls]


def _maps(told: protocol.Logprobs, wanted: int) -> Iterator[dict[str, float]]:
    """A map for each token: the chosen one first, then the most likely others, `wanted` together."""
    for entry in told.content or ():
        others = {other.token: other.logprob for other in entry.top_logprobs or ()}
        yield _first(entry.token, entry.logprob, others, wanted)
    tokens, values = told.tokens or [], told.token_logprobs or []
    tops = told.top_logprobs or [None] * len(tokens)
    for token, value, top in zip(tokens, values, tops, strict=False):
        yield _first(token, value or 0.0, top or {}, wanted)


def _first(token: str, value: float, others: dict[str, float], wanted: int) -> dict[str, float]:
    ranked = sorted(((name, each) for name, each in others.items() if name != token), key=lambda item: -item[1])
    return dict([(token, value), *ranked][:wanted])


@dataclass(slots=True)
class _Call:
    """One call as it comes. told: how many of its pieces have been told; None before `started`."""

    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    told: int | None = None


class _Calls:
    """Puts calls together and tells them one after the other, whatever order their pieces come in.

    A call is done when its arguments are a whole JSON object and another call begins, or at the end of the answer.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._open: dict[int, _Call] = {}
        self._last = -1

    def feed(self, piece: protocol.CallPiece) -> list[ToolCallDelta]:
        """What a piece lets be told."""
        index = piece.index
        if index is None:  # an id begins a call where they are not numbered
            index = self._last + 1 if piece.id or self._last < 0 else self._last
        self._last = index
        call = self._open.setdefault(index, _Call())
        function = piece.function or protocol.FunctionPiece()
        call.id = call.id or piece.id or ""
        call.name = call.name or function.name or ""
        if function.arguments:
            call.pieces.append(function.arguments)
        events: list[ToolCallDelta] = []
        while True:
            first = next(iter(self._open))
            events += self._tell(self._open[first])
            if len(self._open) == 1 or _arguments(self._open[first]) is None:
                return events
            events.append(self._done(self._open.pop(first)))

    def end(self) -> Iterator[ToolCallDelta]:
        """What is left of all calls."""
        for call in self._open.values():
            yield from self._tell(call)
            yield self._done(call)
        self._open = {}

    def _tell(self, call: _Call) -> Iterator[ToolCallDelta]:
        if call.told is None:
            call.told = 0
            yield ToolCallDelta("started")
        for piece in call.pieces[call.told :]:
            yield ToolCallDelta("in_progress", piece)
        call.told = len(call.pieces)

    def _done(self, call: _Call) -> ToolCallDelta:
        arguments = _arguments(call)
        if arguments is None or not call.name:
            return ToolCallDelta("failed", "".join(call.pieces))
        made = ToolCall(call_id=call.id or self._new_id(), tool_name=call.name, arguments=arguments)
        return ToolCallDelta("succeeded", call=made)


def _arguments(call: _Call) -> dict[str, Any] | None:
    """The arguments, none for an empty text; None while or if they are no JSON object."""
    text = "".join(call.pieces)
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def parse_chunk(data: bytes) -> protocol.Chunk:
    """The chunk in an event's data. Raises Unavailable: it is none."""
    try:
        return protocol.chunk.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unavailable("the upstream's stream holds what is no chunk of an answer", internal=str(error)) from error
