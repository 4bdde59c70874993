"""The contract's messages in the form that chat templates read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backends.generation import text_of
from generated.models import CompletionMessage, Message, ToolResponseMessage, UserMessage


def template_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """One dict with `role` and `content` per message; items are joined by line breaks, a user message's context follows
    its content after an empty line. Tool calls and results are as in OpenAI's API, but for arguments: an object.

    Raises:
        Unsupported: a message holds an image; `where` is its JSON pointer.
    """
    return [_template_message(message, f"/messages/{i}") for i, message in enumerate(messages)]


def _template_message(message: Message, where: str) -> dict[str, Any]:
    content = text_of(message.content, where=f"{where}/content")
    entry: dict[str, Any] = {"role": message.role, "content": content}
    match message:
        case UserMessage(context=context) if context is not None:
            entry["content"] = f"{content}\n\n{text_of(context, where=f'{where}/context')}"
        case ToolResponseMessage():
            entry |= {"name": message.tool_name, "tool_call_id": message.call_id}
        case CompletionMessage(tool_calls=[_, *_] as calls):
            entry["tool_calls"] = [
                {"id": c.call_id, "type": "function", "function": {"name": c.tool_name, "arguments": c.arguments}}
                for c in calls
            ]
    return entry
