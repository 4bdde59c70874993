"""Calls as JSON between `<tool_call>` tags, as Hermes, Qwen and most ChatML models write them:

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Paris"}}
    </tool_call>

Source: https://github.com/NousResearch/Hermes-Function-Calling
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backends.onnx.tokenizer import PromptSegment
from backends.onnx.tools.dialect import Dialect
from backends.onnx.tools.grammar import JSON, MORE, TEXT, Grammar
from backends.onnx.tools.json_object import object_rest, read_object, write_object
from backends.onnx.tools.signatures import Signature
from backends.onnx.tools.stream import CallStream, Opening, Steps
from generated.models import ToolCall

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class ChatmlCalls(Dialect):
    """Hermes' form of tool calls. The tags are tokens of their own in some vocabularies and plain text in others."""

    name = "chatml"
    marks = (OPEN, CLOSE)

    def instructions(self, signatures: Sequence[Signature]) -> list[PromptSegment]:
        tools = "\n".join(signature.function_json() for signature in signatures)
        return [
            PromptSegment(
                "You can call functions to help with the user's request. These are their signatures:\n"
                f"<tools>\n{tools}\n</tools>\n\n"
                "To call a function, write its name and arguments as JSON between these tags:\n"
            ),
            self.mark(OPEN),
            PromptSegment('\n{"name": <function name>, "arguments": <object of arguments>}\n'),
            self.mark(CLOSE),
        ]

    def write(self, calls: Sequence[ToolCall]) -> list[PromptSegment]:
        segments = []
        for position, call in enumerate(calls):
            body = write_object(call.tool_name, call.arguments, "arguments")
            segments += [
                *([PromptSegment("\n")] if position else []),
                self.mark(OPEN),
                PromptSegment(f"\n{body}\n"),
                self.mark(CLOSE),
            ]
        return segments

    def grammar(self, signatures: Sequence[Signature], *, required: bool) -> str:
        grammar = Grammar(JSON)
        rest = object_rest(grammar, signatures, "arguments")
        opened, close = self.mark_symbol(OPEN, f'"{OPEN}"'), self.mark_symbol(CLOSE, f'"{CLOSE}"')
        grammar.add(rf'body: "\n{{\"name\"" {rest} "}}\n" {close}', rf'more: ("\n" {opened} body){MORE}')
        if required:
            grammar.add(f"start: {opened} body more")
        else:
            # The tag in plain characters is a beginning too, also where it is a token: `CallStream` cannot tell them.
            token = f"TEXT {OPEN} | " if OPEN in self.tokens else ""
            grammar.add("start: TEXT | head body more", f"head: {token}spelled", f'spelled[lazy]: TEXT "{OPEN}"', TEXT)
        return grammar.lark()

    def parser(self, signatures: Sequence[Signature], new_id: Callable[[], str] | None) -> CallStream:
        return _ChatmlStream(signatures, new_id)


class _ChatmlStream(CallStream):
    def __init__(self, signatures: Sequence[Signature], new_id: Callable[[], str] | None) -> None:
        super().__init__([Opening.of_text(OPEN)], new_id)
        self._names = {signature.name for signature in signatures}

    def _calls(self) -> Steps:
        yield from self._skip(OPEN)
        self._start()
        yield from self._skip_blank()
        if self._buffer.startswith("{"):
            complete = yield from self._bracketed('"')
            self._end(read_object("".join(self._raw), self._names) if complete else None)
            yield from self._skip_blank()
            yield from self._skip(CLOSE)
        else:
            yield from self._until(CLOSE)
            self._end(None)
