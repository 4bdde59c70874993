"""What all ways to write a tool call have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from backends.onnx.tokenizer import PromptSegment
from backends.onnx.tools.signatures import Signature, read_signatures
from backends.onnx.tools.stream import CallStream
from generated.models import ToolCall, ToolDefinition


class Dialect(ABC):
    """One way to write tool calls.

    special_tokens: those of the model. added_tokens: others that are one token whatever stands around them.
    visible_tokens: special tokens that calls are made of.
    """

    name: ClassVar[str]
    marks: ClassVar[tuple[str, ...]] = ()
    """Texts around calls that are tokens of their own with some models, all between angle brackets."""

    def __init__(self, special_tokens: Collection[str], added_tokens: Collection[str] = ()) -> None:
        self.visible_tokens = tuple(mark for mark in self.marks if mark in special_tokens)
        # To llguidance an added token between angle brackets is a special one, whatever the tokenizer says.
        self.tokens = frozenset(mark for mark in self.marks if mark in special_tokens or mark in added_tokens)
        """Which of `marks` are tokens of their own."""

    def signatures(
        self, tools: Sequence[ToolDefinition], schemas: Mapping[str, Mapping[str, Any]] | None = None
    ) -> tuple[Signature, ...]:
        """The tools, if all of them can be called in this form; schemas as of `read_signatures`.

        Raises BadRequest, Unsupported.
        """
        return read_signatures(tools, schemas)

    @abstractmethod
    def instructions(self, signatures: Sequence[Signature]) -> list[PromptSegment]:
        """What to tell a model about the tools and how to call them."""

    @abstractmethod
    def write(self, calls: Sequence[ToolCall]) -> list[PromptSegment]:
        """The calls as the model would have written them."""

    @abstractmethod
    def grammar(self, signatures: Sequence[Signature], *, required: bool) -> str:
        """Lark for a whole answer: text without a call, or text that ends in calls; with `required` calls alone."""

    @abstractmethod
    def parser(self, signatures: Sequence[Signature], new_id: Callable[[], str] | None) -> CallStream:
        """A new reader of one answer."""

    def mark(self, text: str) -> PromptSegment:
        """One of `marks` in a prompt, as the special token that it is or as plain text."""
        return PromptSegment(text, special=text in self.visible_tokens)

    def mark_symbol(self, text: str, lark: str) -> str:
        """Lark for one of `marks`; `lark`: how it is written if it is plain text."""
        return text if text in self.tokens else lark
