"""Conversations with tools for a chat template: by the template's own means, or with our words in its messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.onnx.chat_template import MixedText
from backends.onnx.messages import template_messages
from backends.onnx.tokenizer import PromptSegment
from backends.onnx.tools.dialect import Dialect
from backends.onnx.tools.signatures import Signature
from generated.models import Message, ToolCall, ToolChoice

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChatInput:
    """What `ChatTemplate.render` is called with."""

    messages: list[Entry]
    tools: list[dict[str, Any]] | None = None
    variables: dict[str, Any] = field(default_factory=dict)

    def characters(self) -> int:
        """The length of all content, which the prompt cannot be shorter than."""
        return sum(len(entry["content"]) for entry in self.messages)


class OwnWords:
    """Describes the tools in the system message and writes calls as content, for templates that are not asked.

    takes_results: whether the template has a role for the results of tools; if not they are a user's message.
    """

    def __init__(self, dialect: Dialect, *, takes_results: bool) -> None:
        self._dialect = dialect
        self._takes_results = takes_results

    def chat(
        self, messages: Sequence[Message], signatures: Sequence[Signature], choice: ToolChoice, *, formatted: bool
    ) -> ChatInput:
        entries: list[Entry] = []
        after_result = False
        for entry in template_messages(messages):
            is_result = entry["role"] == "tool" and not self._takes_results
            if is_result:
                text = f"<tool_response>\n{entry['content']}\n</tool_response>"
                # One message for all of them, since many templates want users and assistants to alternate.
                if after_result:
                    entries[-1]["content"] += f"\n{text}"
                else:
                    entries.append({"role": "user", "content": text})
            elif calls := entry.pop("tool_calls", None):
                entries.append({**entry, "content": self._called(entry["content"], calls)})
            else:
                entries.append(entry)
            after_result = is_result
        if signatures:
            self._add_instructions(entries, signatures, choice, formatted)
        return ChatInput(entries)

    def _add_instructions(
        self, entries: list[Entry], signatures: Sequence[Signature], choice: ToolChoice, formatted: bool
    ) -> None:
        form = "the form that is asked for" if formatted else "plain text"
        when = "You must call a function." if choice == "required" else f"If no function helps, answer in {form}."
        segments = [*self._dialect.instructions(signatures), PromptSegment(f"\n\n{when}")]
        if entries and entries[0]["role"] == "system":
            segments.append(PromptSegment(f"\n\n{entries[0]['content']}"))
            del entries[0]
        entries.insert(0, {"role": "system", "content": MixedText(tuple(segments))})

    def _called(self, content: str, calls: Sequence[dict[str, Any]]) -> MixedText:
        written = self._dialect.write([_tool_call(call) for call in calls])
        return MixedText((*([PromptSegment(f"{content}\n")] if content else []), *written))


class TemplateWords:
    """Leaves tools, calls and results to the template.

    takes_builtin_tools: whether it has a way of its own for built-in tools. one_call_each: whether it refuses messages
    with several calls; then each call is followed by its result, as if they had been made one after the other.
    """

    def __init__(self, *, takes_builtin_tools: bool, one_call_each: bool) -> None:
        self._takes_builtin_tools = takes_builtin_tools
        self._one_call_each = one_call_each

    def chat(
        self, messages: Sequence[Message], signatures: Sequence[Signature], choice: ToolChoice, *, formatted: bool
    ) -> ChatInput:
        entries = template_messages(messages)
        if self._one_call_each:
            entries = _one_by_one(entries)
        builtin = [s.name for s in signatures if s.builtin and self._takes_builtin_tools]
        tools = [{"type": "function", "function": s.function()} for s in signatures if s.name not in builtin]
        return ChatInput(entries, tools or None, {"builtin_tools": builtin} if builtin else {})


def _one_by_one(entries: Sequence[Entry]) -> list[Entry]:
    """The same conversation with at most one call in a message."""
    rows: list[Entry] = []
    pending = deque(entries)
    while pending:
        entry = pending.popleft()
        calls = entry.get("tool_calls", [])
        if len(calls) < 2:
            rows.append(entry)
            continue
        results = []
        while pending and pending[0]["role"] == "tool":
            results.append(pending.popleft())
        content = entry["content"]
        for call in calls:
            rows.append({**entry, "content": content, "tool_calls": [call]})
            content = ""
            own = next((result for result in results if result["tool_call_id"] == call["id"]), None)
            if own is not None:
                results.remove(own)
                rows.append(own)
        rows += results
    return rows


def _tool_call(call: dict[str, Any]) -> ToolCall:
    function = call["function"]
    return ToolCall(call_id=call["id"], tool_name=function["name"], arguments=function["arguments"])
