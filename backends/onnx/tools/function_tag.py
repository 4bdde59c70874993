"""Calls in a tag that names the function, the custom format of Llama 3.1:

    <function=get_weather>{"city": "Paris"}</function>

Source: https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/prompt_format.md
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from backends.onnx.tools.grammar import JSON, MORE, TEXT, Grammar, literal
from backends.onnx.tools.json_object import read_json, write_json
from backends.onnx.tools.python_tag import PythonTagDialect, PythonTagStream
from backends.onnx.tools.signatures import Signature
from backends.onnx.tools.stream import CallStream, Opening, Steps, plain_arguments
from generated.models import ToolCall

OPEN, CLOSE = "<function=", "</function>"


class FunctionTagCalls(PythonTagDialect):
    """Llama 3.1's tags; its built-in tools are called in its own way where the model has the token for it.

    brief: describe each tool in a short line instead of by its JSON Schema, which small models do not read.
    """

    name = "function_tag"
    separator = "\n"

    def __init__(
        self,
        special_tokens: Collection[str],
        added_tokens: Collection[str] = (),
        *,
        tagged: bool = True,
        brief: bool = False,
    ) -> None:
        super().__init__(special_tokens, added_tokens, tagged=tagged)
        self._brief = brief

    def custom_instructions(self, signatures: Sequence[Signature]) -> str:
        how = (
            "To call a function, reply on one line in this form and add nothing:\n"
            '<function=function_name>{"parameter": "value"}</function>'
        )
        if self._brief:
            tools = "\n".join(f"- {signature.line()}" for signature in signatures)
            return f"{how}\n\nYou can call these functions:\n{tools}"
        tools = "\n".join(signature.function_json() for signature in signatures)
        return f"You have access to the following functions:\n\n{tools}\n\n{how}"

    def write_custom(self, call: ToolCall) -> str:
        return f"{OPEN}{call.tool_name}>{write_json(call.arguments)}{CLOSE}"

    def grammar(self, signatures: Sequence[Signature], *, required: bool) -> str:
        grammar = Grammar(JSON)
        custom, starts = self.custom(signatures), []
        if custom:
            calls = []
            for number, signature in enumerate(custom):
                arguments = grammar.arguments(signature, number)
                calls.append(f"{literal(signature.name + '>{')} {arguments} {literal('}' + CLOSE)}")
            grammar.add("rest: " + " | ".join(calls), rf'more: ("\n"? "{OPEN}" rest){MORE}')
            starts.append(f'"{OPEN}" rest more' if required else "head rest more")
            if not required:
                grammar.add(f'head[lazy]: TEXT "{OPEN}"')
        starts += self.add_tagged(grammar, signatures, required, other="")
        if not required:
            starts.append("TEXT")
            grammar.add(TEXT)
        grammar.add("start: " + " | ".join(starts))
        return grammar.lark()

    def parser(self, signatures: Sequence[Signature], new_id: Callable[[], str] | None) -> CallStream:
        return _FunctionTagStream(self, signatures, Opening.of_text(OPEN), new_id, json_behind_tag=False)


class _FunctionTagStream(PythonTagStream):
    def _custom_calls(self) -> Steps:
        self._start()
        heads = sorted((f"{OPEN}{name}>" for name in self._names), key=len, reverse=True)
        # A name may hold a `>`, so it ends where a known one does.
        while not self._ended and any(head.startswith(self._buffer) for head in heads):
            yield
        head = next((head for head in heads if self._buffer.startswith(head)), None)
        if head is None:
            yield from self._until(CLOSE)
            self._end(None)
            return
        self._progress(len(head))
        yield from self._skip_blank()
        if not self._buffer.startswith("{"):
            yield from self._until(CLOSE)
            self._end(None)
            return
        yield from self._bracketed('"')
        arguments = plain_arguments(read_json("".join(self._raw)[len(head) :]))
        self._end(None if arguments is None else (head[len(OPEN) : -1], arguments))
        yield from self._skip_blank()
        yield from self._skip(CLOSE)
