"""The messages of a turn's prompt: instructions, what was said before, what is new.

The same turns give the same messages every time, so that the engine finds what it computed for the turns before in its
prefix cache. What retrieval found stands beside the last question only: that of earlier questions would fill the
context. Of the calls that the model made only those are told that were answered, since templates pair the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from backends.agents.records import StoredTurn
from backends.agents.shields import stops
from backends.generation import text_of
from generated.models import (
    CompletionMessage,
    InferenceStep,
    InterleavedContent,
    InterleavedContentItem,
    Message,
    ShieldCallStep,
    SystemMessage,
    TextContentItem,
    ToolExecutionStep,
    ToolResponseMessage,
    TurnInputMessage,
    UserMessage,
)

RETRIEVAL_CALL = ""
"""The call id of what retrieval found: the model never asked for it, so it is no result of a call."""


def messages_of(instructions: str, turns: Sequence[StoredTurn], new: StoredTurn) -> list[Message]:
    """The prompt of the first inference of the turn `new` after the turns of its session."""
    told = [*(stored for stored in turns if stored.completed), new]
    asking = max(
        (i for i, stored in enumerate(told) if last_question(stored.turn.input_messages) is not None), default=-1
    )
    messages: list[Message] = [SystemMessage(content=instructions)] if instructions else []
    for position, stored in enumerate(told):
        messages += with_context(
            stored.turn.input_messages, stored.document_context, stored.retrieved if position == asking else None
        )
        messages += _of_steps(stored)
    return list(_answered(messages))


def last_question(messages: Sequence[Message]) -> int | None:
    """The place of the last user message, None without one."""
    return max((i for i, message in enumerate(messages) if isinstance(message, UserMessage)), default=None)


def with_context(
    messages: Sequence[TurnInputMessage], document_context: str, retrieved: InterleavedContent | None
) -> list[Message]:
    """The messages, the last user message with what documents and retrieval add to it."""
    told: list[Message] = list(messages)
    place = last_question(told)
    if place is None or not (document_context or retrieved):
        return told
    question = told[place]
    assert isinstance(question, UserMessage)  # noqa: S101
    added = [*_items(question.context), *_items(document_context or None), *_items(retrieved)]
    told[place] = question.model_copy(update={"context": added})
    return told


def joined(messages: Sequence[Message]) -> list[Message]:
    """One message with all that the messages say, as shields are to judge it together; a single one as it is.

    Raises:
        Unsupported: a message holds an image.
    """
    if len(messages) == 1:
        return list(messages)
    texts = []
    for position, message in enumerate(messages):
        texts.append(text_of(message.content, where=f"/messages/{position}/content"))
        if isinstance(message, UserMessage) and message.context is not None:
            texts.append(text_of(message.context, where=f"/messages/{position}/context"))
    return [UserMessage(content="\n\n".join(texts))]


def _of_steps(stored: StoredTurn) -> Iterator[Message]:
    steps, output = stored.turn.steps, stored.turn.output_message
    for step in steps:
        if isinstance(step, InferenceStep):
            yield step.model_response
        elif isinstance(step, ToolExecutionStep):
            for answer in step.tool_responses:
                if answer.call_id != RETRIEVAL_CALL:
                    yield ToolResponseMessage(
                        call_id=answer.call_id, tool_name=answer.tool_name, content=answer.content
                    )
    if steps and isinstance(steps[-1], ShieldCallStep) and stops(steps[-1].violation) and not output.tool_calls:
        yield output


def _answered(messages: Sequence[Message]) -> Iterator[Message]:
    """The messages without calls that have no result; an assistant's message that says nothing then is left out."""
    answered = {message.call_id for message in messages if isinstance(message, ToolResponseMessage)}
    for message in messages:
        if not isinstance(message, CompletionMessage):
            yield message
            continue
        calls = [call for call in message.tool_calls or () if call.call_id in answered]
        if calls or message.content:
            yield message.model_copy(update={"tool_calls": calls})


def _items(content: InterleavedContent | None) -> Iterable[InterleavedContentItem]:
    if content is None:
        return []
    if isinstance(content, str):
        return [TextContentItem(text=content)]
    return content if isinstance(content, list) else [content]
