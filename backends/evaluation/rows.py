"""What a row of an evaluation asks its candidate.

A column holds JSON, or a text with JSON or Python literals in it, as datasets in CSV files have them. Such a text is
read by `ast.literal_eval` at most, and never evaluated.
"""

from __future__ import annotations

import ast
import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from backends.errors import BadRequest
from backends.ports import JsonObject
from generated.models import InterleavedContent, Message, ToolDefinition

CHAT, COMPLETION, TOOLS = "chat_completion_input", "completion_input", "tools"
MAX_TEXT = 1_000_000
"""Characters of a column that is a text with literals in it."""
_MESSAGES: TypeAdapter[list[Message]] = TypeAdapter(list[Message])
_CONTENT: TypeAdapter[InterleavedContent] = TypeAdapter(InterleavedContent)
_TOOLS: TypeAdapter[list[ToolDefinition]] = TypeAdapter(list[ToolDefinition])


def is_chat(row: JsonObject, *, where: str) -> bool:
    """Whether the row is a conversation, and not a text to continue. Raises BadRequest: it is neither."""
    if row.get(CHAT) is not None:
        return True
    if row.get(COMPLETION) is not None:
        return False
    raise BadRequest(f"a row needs `{CHAT}`, a list of messages, or `{COMPLETION}`, a text", where=where)


def messages_of(row: JsonObject, *, where: str) -> list[Message]:
    """The conversation of a row. Raises BadRequest: its column holds no list of messages."""
    place = f"{where}/{CHAT}"
    messages: list[Message] = _read(_MESSAGES, _literal(row[CHAT], where=place), "a list of messages", where=place)
    return messages


def content_of(row: JsonObject, *, where: str) -> InterleavedContent:
    """The text of a row to continue: as it stands, unless it holds JSON of the contract's content."""
    value = row[COMPLETION]
    if isinstance(value, str):
        try:
            return _CONTENT.validate_python(json.loads(value))
        except (ValueError, RecursionError):  # a plain text
            return value
    content: InterleavedContent = _read(_CONTENT, value, "content", where=f"{where}/{COMPLETION}")
    return content


def tools_of(row: JsonObject, *, where: str) -> tuple[ToolDefinition, ...]:
    """The tools that a row offers its candidate: its column `tools`, none without one. Raises BadRequest."""
    if row.get(TOOLS) is None:
        return ()
    value = _literal(row[TOOLS], where=f"{where}/{TOOLS}")
    return tuple(_read(_TOOLS, value, "a list of tool definitions", where=f"{where}/{TOOLS}"))


def _read(kind: TypeAdapter[Any], value: object, noun: str, *, where: str) -> Any:
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = "/".join(str(step) for step in first["loc"])
        raise BadRequest(f"this is not {noun}: {first['msg']} at {place or 'its root'}", where=where) from None


def _literal(value: object, *, where: str) -> object:
    if not isinstance(value, str):
        return value
    if len(value) > MAX_TEXT:
        raise BadRequest(f"a text with literals has at most {MAX_TEXT} characters", where=where)
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise BadRequest("this text is neither JSON nor a Python literal", where=where)
