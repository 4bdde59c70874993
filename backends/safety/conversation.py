"""What of a conversation a shield looks at, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backends.errors import PayloadTooLarge
from backends.generation import text_of
from generated.models import CompletionMessage, Message, UserMessage

MAX_CHARACTERS = 1_000_000
"""Of all messages that one shield looks at: a longer conversation is refused, since nothing of it may be skipped."""


def texts_of(messages: Sequence[Message]) -> list[str]:
    """The text of each message: its content, the context of a user's, the arguments of an assistant's tool calls.

    Raises:
        Unsupported: a message holds an image. PayloadTooLarge.
    """
    texts = ["\n".join(_parts(message, where=f"/messages/{i}")) for i, message in enumerate(messages)]
    total = sum(map(len, texts))
    if total > MAX_CHARACTERS:
        raise PayloadTooLarge(f"the messages hold {total} characters, a shield looks at up to {MAX_CHARACTERS}")
    return texts


def new_texts(messages: Sequence[Message]) -> list[str]:
    """The texts of what came in since the assistant last spoke; of what it said, where that comes last.

    A conversation is shown to a shield again with every turn: what was judged then is not judged again. System messages
    are the operator's and not judged at all. Raises as `texts_of`.
    """
    texts = texts_of(messages)
    if isinstance(messages[-1], CompletionMessage):
        return texts[-1:]
    spoken = max((i for i, message in enumerate(messages) if message.role == "assistant"), default=-1)
    return [texts[i] for i in range(spoken + 1, len(messages)) if messages[i].role != "system"]


def _parts(message: Message, *, where: str) -> Iterator[str]:
    yield text_of(message.content, where=f"{where}/content")
    if isinstance(message, UserMessage) and message.context is not None:
        yield text_of(message.context, where=f"{where}/context")
    if isinstance(message, CompletionMessage):
        for call in message.tool_calls or ():
            yield from strings_of(call.arguments)


def strings_of(value: object) -> Iterator[str]:
    """Every string within a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_of(inner)
