"""The contract's conversation, images and tools in OpenAI's form."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from backends.errors import BadRequest, Unsupported
from backends.generation import text_of
from generated.models import (
    CompletionMessage,
    ImageContentItem,
    InterleavedContent,
    Message,
    TextContentItem,
    ToolCall,
    ToolDefinition,
    ToolParamDefinition,
    ToolResponseMessage,
    UserMessage,
)

JsonObject = dict[str, Any]

_IMAGE_TYPES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)
_JSON_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
    **{name: name for name in ("string", "integer", "number", "boolean", "array", "object")},
}
"""Python's names of types, which the contract's clients send, and JSON Schema's own."""
_QUERY = {"query": ToolParamDefinition(param_type="string", description="What to ask or to search for")}
_BUILTIN = {
    "brave_search": ("Search the web.", _QUERY),
    "wolfram_alpha": ("Ask Wolfram Alpha.", _QUERY),
    "code_interpreter": (
        "Run Python code.",
        {"code": ToolParamDefinition(param_type="string", description="The code to run")},
    ),
}
"""Built-in tools by name come without description and parameters: an upstream knows no such names."""


def chat_messages(messages: Sequence[Message], *, vision: bool) -> list[JsonObject]:
    """OpenAI's messages. A user message's context follows its content after an empty line.

    Raises:
        Unsupported: an image where `vision` is off, or one to be fetched from a URL. BadRequest: no image.
    """
    return [_message(message, f"/messages/{i}", vision) for i, message in enumerate(messages)]


def _message(message: Message, where: str, vision: bool) -> JsonObject:
    place = f"{where}/content"
    match message:
        case UserMessage(content=content, context=None):
            return {"role": "user", "content": _content(content, place, vision)}
        case UserMessage(content=content, context=context) if context is not None:
            first, second = _content(content, place, vision), _content(context, f"{where}/context", vision)
            if isinstance(first, str) and isinstance(second, str):
                return {"role": "user", "content": f"{first}\n\n{second}"}
            return {"role": "user", "content": [*_items(first), *_items(second)]}
        case ToolResponseMessage(call_id=call_id, content=content):
            return {"role": "tool", "tool_call_id": call_id, "content": text_of(content, where=place)}
        case CompletionMessage(content=content, tool_calls=[_, *_] as calls):
            # Upstreams differ on whether "" beside calls is an answer; null never is.
            text = text_of(content, where=place)
            return {"role": "assistant", "content": text or None, "tool_calls": [_call(call) for call in calls]}
        case _:
            return {"role": message.role, "content": text_of(message.content, where=place)}


def _call(call: ToolCall) -> JsonObject:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.call_id, "type": "function", "function": {"name": call.tool_name, "arguments": arguments}}


def _content(content: InterleavedContent, where: str, vision: bool) -> str | list[JsonObject]:
    items = content if isinstance(content, list) else [content]
    if not vision or not any(isinstance(item, ImageContentItem) for item in items):
        return text_of(content, where=where)
    parts: list[JsonObject] = []
    for position, item in enumerate(items):
        place = f"{where}/{position}" if isinstance(content, list) else where
        match item:
            case ImageContentItem():
                parts.append({"type": "image_url", "image_url": {"url": _image(item, place)}})
            case TextContentItem(text=text):
                parts.append({"type": "text", "text": text})
            case str():
                parts.append({"type": "text", "text": item})
    return parts


def _items(content: str | list[JsonObject]) -> list[JsonObject]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _image(item: ImageContentItem, where: str) -> str:
    """A data: URL. Others are never passed on: the upstream would open what a client names, from within its network."""
    url = item.image.url.uri if item.image.url is not None else ""
    if url.startswith("data:image/"):
        return url
    if url:
        raise Unsupported("images are not fetched from URLs here; send the image as data", where=where)
    data = item.image.data or ""
    try:
        head = base64.b64decode(data[:64], validate=True)
    except binascii.Error:
        head = b""
    for magic, media_type in _IMAGE_TYPES:
        if head.startswith(magic):
            return f"data:{media_type};base64,{data}"
    raise BadRequest("image data must be a PNG, JPEG, GIF or WebP file in base64", where=where)


def chat_tools(tools: Sequence[ToolDefinition], schemas: Mapping[str, JsonObject] | None = None) -> list[JsonObject]:
    """OpenAI's function tools. schemas: as of `ChatPrompt`. Raises Unsupported: `photogen`."""
    return [_tool(tool, (schemas or {}).get(tool.tool_name), f"/tools/{i}") for i, tool in enumerate(tools)]


def _tool(tool: ToolDefinition, schema: JsonObject | None, where: str) -> JsonObject:
    if tool.tool_name == "photogen":
        raise Unsupported("photogen is not supported; leave it out", where=where)
    description, parameters = tool.description, tool.parameters
    if tool.tool_name in _BUILTIN:
        usual_description, usual_parameters = _BUILTIN[tool.tool_name]
        description, parameters = description or usual_description, parameters or usual_parameters
    parameters = parameters or {}
    function: JsonObject = {
        "name": tool.tool_name,
        "parameters": schema
        or {
            "type": "object",
            "properties": {name: _parameter(parameter) for name, parameter in parameters.items()},
            "required": [name for name, parameter in parameters.items() if parameter.required],
        },
    }
    if description:
        function["description"] = description
    return {"type": "function", "function": function}


def _parameter(parameter: ToolParamDefinition) -> JsonObject:
    """JSON Schema of a parameter. A type that neither Python nor JSON Schema knows is left open and told in words."""
    base = parameter.param_type.partition("[")[0].strip().lower()
    schema: JsonObject = {}
    description = parameter.description or ""
    if base in _JSON_TYPES:
        schema["type"] = _JSON_TYPES[base]
    else:
        description = f"{description} ({parameter.param_type})".strip()
    if description:
        schema["description"] = description
    if parameter.default is not None:
        schema["default"] = parameter.default
    return schema
