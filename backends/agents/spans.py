"""Spans of turns, with the names and attributes of the reference server, which notebooks ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.trace import Span

from backends.generation import text_of
from backends.telemetry import names
from backends.telemetry.tracing import Tracing, Value, failed
from generated.models import (
    CompletionMessage,
    InterleavedContent,
    Message,
    SafetyViolation,
    TextContentItem,
    ToolCall,
    Turn,
)

NO_VIOLATIONS = "no violations"


class TurnSpans:
    """The span of one turn and those within it. What was said is in them only where the settings capture content."""

    def __init__(self, tracing: Tracing, agent_id: str, turn: Turn) -> None:
        self._tracing = tracing
        self._content = tracing.enabled and tracing.capture_content
        attributes: dict[str, Value] = {
            names.AGENT_ID: agent_id,
            names.SESSION_ID: turn.session_id,
            names.TURN_ID: turn.turn_id,
        }
        self._turn = tracing.start(names.TURN, attributes)
        if self._content:
            self._turn.set_attribute(names.REQUEST, _texts(turn.input_messages))

    def end(self, error: BaseException | None = None) -> None:
        """The turn has ended."""
        if error is not None:
            failed(self._turn, error)
        self._turn.end()

    @contextmanager
    def shields(self, messages: Sequence[Message]) -> Iterator[Span]:
        """Around shields that judge messages; `judged` says what they found."""
        with self._within(names.SHIELDS) as span:
            if self._content:
                span.set_attribute(names.INPUT, _texts(messages))
            yield span

    def judged(self, span: Span, violation: SafetyViolation | None) -> None:
        """What the shields of a span said."""
        output = NO_VIOLATIONS if violation is None else violation.model_dump_json(exclude_none=True)
        span.set_attribute(names.OUTPUT, output)

    @contextmanager
    def tool(self, call: ToolCall, name: str = names.TOOL_EXECUTION, asked: str | None = None) -> Iterator[Span]:
        """Around a tool that runs. asked: what it is asked; None for the arguments of the call."""
        with self._within(name) as span:
            span.set_attribute(names.TOOL_NAME, call.tool_name)
            if self._content:
                span.set_attribute(names.INPUT, call.model_dump_json() if asked is None else asked)
            yield span

    def answered(self, span: Span, content: InterleavedContent) -> None:
        """What the tool of a span answered."""
        if self._content:
            span.set_attribute(names.OUTPUT, plain(content))

    def inference(self, messages: Sequence[Message]) -> Span:
        """A span that `inferred` ends, for its events come one by one."""
        span = self._tracing.start(names.INFERENCE, parent=self._turn)
        if self._content:
            span.set_attribute(names.INPUT, _texts(messages))
        return span

    def inferred(self, span: Span, message: CompletionMessage) -> None:
        """The inference of a span has ended."""
        span.set_attribute(names.STOP_REASON, message.stop_reason)
        if self._content:
            calls = [call.model_dump_json() for call in message.tool_calls or ()]
            span.set_attribute(names.OUTPUT, f"content: {plain(message.content)} tool_calls: {calls}")
        span.end()

    @contextmanager
    def during(self, span: Span) -> Iterator[None]:
        """Make a span the current one for the length of the block; an error ends it."""
        try:
            with self._tracing.within(span):
                yield
        except BaseException as error:
            self.broke(span, error)
            raise

    def broke(self, span: Span, error: BaseException) -> None:
        """What a span stands for ended with an error."""
        failed(span, error)
        span.end()

    @contextmanager
    def _within(self, name: str) -> Iterator[Span]:
        with self._tracing.within(self._turn), self._tracing.span(name) as span:
            yield span


def plain(content: InterleavedContent) -> str:
    """The text of a content, `<image>` for an image."""
    items = content if isinstance(content, list) else [content]
    return "\n".join(
        "<image>" if not isinstance(item, str | TextContentItem) else text_of(item, where="") for item in items
    )


def _texts(messages: Sequence[Message]) -> list[str]:
    return [message.model_dump_json(exclude_none=True) for message in messages]
