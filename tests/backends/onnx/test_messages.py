"""Messages of the contract as the templates read them."""

from __future__ import annotations

import pytest

from backends.errors import Unsupported
from backends.onnx.messages import template_messages
from generated.models import (
    CompletionMessage,
    ImageContentItem,
    SystemMessage,
    TextContentItem,
    ToolCall,
    ToolResponseMessage,
    UserMessage,
)

IMAGE = ImageContentItem.model_validate({"type": "image", "image": {"data": "aGk="}})
CALL = ToolCall(call_id="c", tool_name="weather", arguments={"city": "Orléans"})


def test_items_are_joined_and_the_context_follows_after_an_empty_line() -> None:
    items = [TextContentItem(text="a"), TextContentItem(text="b")]
    messages = (
        SystemMessage(content="s"),
        UserMessage(content=items, context=[TextContentItem(text="c")]),
        CompletionMessage(content="d", stop_reason="end_of_turn"),
        UserMessage(content=TextContentItem(text="e")),
    )
    assert template_messages(messages) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a\nb\n\nc"},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": "e"},
    ]


def test_tool_calls_and_results_have_the_members_that_templates_look_for() -> None:
    messages = (
        CompletionMessage(content="", stop_reason="end_of_turn", tool_calls=[CALL]),
        ToolResponseMessage(call_id="c", tool_name="weather", content="sunny"),
    )
    function = {"name": "weather", "arguments": {"city": "Orléans"}}
    assert template_messages(messages) == [
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "function", "function": function}]},
        {"role": "tool", "content": "sunny", "name": "weather", "tool_call_id": "c"},
    ]


@pytest.mark.parametrize(
    ("message", "where"),
    [
        (UserMessage(content=IMAGE), "/messages/1/content"),
        (UserMessage(content=[TextContentItem(text="a"), IMAGE]), "/messages/1/content/1"),
        (UserMessage(content="a", context=[IMAGE]), "/messages/1/context/0"),
        (ToolResponseMessage(call_id="c", tool_name="t", content=IMAGE), "/messages/1/content"),
    ],
)
def test_an_image_is_refused_with_its_place(message: UserMessage | ToolResponseMessage, where: str) -> None:
    with pytest.raises(Unsupported, match="images") as refusal:
        template_messages([SystemMessage(content="s"), message])
    assert refusal.value.where == where
