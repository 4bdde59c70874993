"""What of a conversation shields look at."""

from __future__ import annotations

import pytest

from backends.errors import PayloadTooLarge, Unsupported
from backends.safety.conversation import MAX_CHARACTERS, new_texts, texts_of
from generated.models import (
    CompletionMessage,
    ImageContentItem,
    Message,
    SystemMessage,
    TextContentItem,
    ToolCall,
    ToolResponseMessage,
    UserMessage,
)

IMAGE = ImageContentItem.model_validate({"type": "image", "image": {"url": {"uri": "https://example.com/a.png"}}})
SYSTEM = SystemMessage(content="rules")
FIRST, SECOND = UserMessage(content="first"), UserMessage(content="second")
CALL = ToolCall(call_id="1", tool_name="search", arguments={"query": "cats", "more": {"list": ["dogs", 1]}})
SPOKE = CompletionMessage(content="spoke", stop_reason="end_of_turn", tool_calls=[CALL])
TOOL = ToolResponseMessage(call_id="1", tool_name="search", content=[TextContentItem(text="found")])


def test_the_text_of_a_message_is_all_that_somebody_wrote_in_it() -> None:
    assert texts_of([UserMessage(content="a", context="b")]) == ["a\nb"]
    assert texts_of([SPOKE, TOOL]) == ["spoke\ncats\ndogs", "found"]


@pytest.mark.parametrize(
    ("messages", "texts"),
    [
        ([FIRST], ["first"]),
        ([SYSTEM, FIRST], ["first"]),
        ([SYSTEM], []),
        ([FIRST, SECOND], ["first", "second"]),
        ([FIRST, SPOKE, TOOL], ["found"]),
        ([FIRST, SPOKE, TOOL, SYSTEM, SECOND], ["found", "second"]),
        ([FIRST, SPOKE], ["spoke\ncats\ndogs"]),
    ],
)
def test_what_is_new_is_what_came_since_the_assistant_spoke(messages: list[Message], texts: list[str]) -> None:
    assert new_texts(messages) == texts


@pytest.mark.parametrize("place", ["content", "context"])
def test_an_image_is_refused_with_its_place(place: str) -> None:
    message = UserMessage.model_validate({"content": "a", place: [TextContentItem(text="b"), IMAGE]})
    with pytest.raises(Unsupported, match="images") as caught:
        new_texts([FIRST, message])
    assert caught.value.where == f"/messages/1/{place}/1"


def test_too_much_text_is_refused_as_a_whole() -> None:
    half = UserMessage(content="a" * (MAX_CHARACTERS // 2))
    assert len(new_texts([half, half])) == 2
    with pytest.raises(PayloadTooLarge, match=str(MAX_CHARACTERS)):
        new_texts([half, half, FIRST])
