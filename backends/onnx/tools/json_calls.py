"""Calls as a bare JSON object, as Llama 3.1 writes them, several on a line each or parted by `; `:

    {"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}

An object counts as a call at the beginning of the answer or of a line, when it begins with `"name"` or with
`"type": "function"`; other JSON stays text.
Source: https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/prompt_format.md
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

from backends.onnx.tools.grammar import JSON, MORE, TEXT, Grammar
from backends.onnx.tools.json_object import object_rest, read_object, write_object
from backends.onnx.tools.python_tag import PythonTagDialect, PythonTagStream
from backends.onnx.tools.signatures import Signature
from backends.onnx.tools.stream import CallStream, Opening, Steps
from generated.models import ToolCall

_GAP = r"[ \t\r\n]{0,8}"
_OPENING = Opening.of_atoms(
    "line",
    [r"\{", _GAP, *'"name"'],
    [r"\{", _GAP, *'"type"', _GAP, ":", _GAP, *'"function"'],
)


class JsonCalls(PythonTagDialect):
    """Llama 3.1's JSON; its built-in tools are called in its own way where the model has the token for it.

    key: what the arguments are called.
    """

    name = "json"
    separator = "\n"

    def __init__(
        self,
        special_tokens: Collection[str],
        added_tokens: Collection[str] = (),
        *,
        tagged: bool = True,
        key: Literal["parameters", "arguments"] = "parameters",
    ) -> None:
        super().__init__(special_tokens, added_tokens, tagged=tagged)
        self._key = key

    def custom_instructions(self, signatures: Sequence[Signature]) -> str:
        tools = "\n".join(signature.function_json() for signature in signatures)
        return (
            f"You have access to the following functions:\n\n{tools}\n\n"
            "To call a function, reply with JSON in this form and add nothing:\n"
            f'{{"type": "function", "name": <function name>, "{self._key}": <object of arguments>}}'
        )

    def write_custom(self, call: ToolCall) -> str:
        return write_object(call.tool_name, call.arguments, self._key, type="function")

    def grammar(self, signatures: Sequence[Signature], *, required: bool) -> str:
        grammar = Grammar(JSON)
        custom, starts = self.custom(signatures), []
        if custom:
            rest = object_rest(grammar, custom, self._key)
            grammar.add(
                r'begun: "{\"type\": \"function\", \"name\"" | "{\"name\""',
                rf'call: begun {rest} "}}"',
                rf'more: (("; " | "\n") call){MORE}',
                "calls: call more",
            )
            if required:
                starts.append("calls")
            else:
                starts += [f'head_name {rest} "}}" more', rf'head_type ", \"name\"" {rest} "}}" more']
                grammar.add(
                    rf'head_name[lazy]: PLACE /\{{{_GAP}"name"/',
                    rf'head_type[lazy]: PLACE /\{{{_GAP}"type"{_GAP}:{_GAP}"function"/',
                    r"PLACE: /(?s:.*)\n[ \t]*|[ \t\r\n]*/",
                )
        behind_tag = "calls" if custom and self.tokens else ""
        starts += self.add_tagged(grammar, signatures, required, other=behind_tag)
        if not required:
            starts.append("TEXT")
            grammar.add(TEXT)
        grammar.add("start: " + " | ".join(starts))
        return grammar.lark()

    def parser(self, signatures: Sequence[Signature], new_id: Callable[[], str] | None) -> CallStream:
        return _JsonStream(self, signatures, _OPENING, new_id, json_behind_tag=bool(self.tokens))


class _JsonStream(PythonTagStream):
    def _custom_calls(self) -> Steps:
        self._start()
        complete = yield from self._bracketed('"')
        self._end(read_object("".join(self._raw), self._names) if complete else None)
