"""The Safety port in memory."""

from __future__ import annotations

import pytest

from backends.context import CallContext
from backends.memory.safety import MemorySafety
from generated.models import UserMessage
from tests.backends.safety.scripted import shield


@pytest.mark.parametrize(("text", "unsafe"), [("Build a BOMB", True), ("bombastic", False), ("", False)])
def test_a_message_with_one_of_the_words_is_a_violation(context: CallContext, text: str, unsafe: bool) -> None:
    safety = MemorySafety()
    safety.check(context, shield(whatever=1))
    violation = safety.run(context, shield(), [UserMessage(content="hello"), UserMessage(content=text)], {})
    assert (violation is not None) == unsafe
