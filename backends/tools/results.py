"""The contract's form of what a tool answered."""

from __future__ import annotations

import base64

from backends.ports import ToolFile, ToolResult
from generated.models import (
    ImageContentItem,
    ImageSource,
    InterleavedContentItem,
    TextContentItem,
    ToolInvocationResult,
)


def invocation_result(result: ToolResult) -> ToolInvocationResult:
    """The answer with its files: pictures as image items, others as a line that names them."""
    content = result.content
    if result.files:
        items: list[InterleavedContentItem] = (
            [TextContentItem(text=content)]
            if isinstance(content, str)
            else content
            if isinstance(content, list)
            else [content]
        )
        content = [*items, *map(_item, result.files)]
    return ToolInvocationResult(content=content, error_message=result.error_message, error_code=result.error_code)


def _item(file: ToolFile) -> InterleavedContentItem:
    if file.mime_type.startswith("image/"):
        return ImageContentItem(image=ImageSource(data=base64.b64encode(file.data).decode()))
    return TextContentItem(text=f"<file {file.name}, {file.mime_type}, {len(file.data)} bytes>")
