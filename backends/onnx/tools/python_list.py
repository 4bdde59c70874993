"""Calls as a Python list, as Llama 3.2 and 3.3 write them:

    [get_weather(city="Paris"), get_time(zone="CET")]

A list counts as calls when the answer begins with a bracket and the first letter of a tool's name, so that a model
cannot call what does not exist, and elsewhere when a line begins with a bracket and the beginning of a tool's call.
Source: https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/text_prompt_format.md
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backends.errors import Unsupported
from backends.onnx.tokenizer import PromptSegment
from backends.onnx.tools.dialect import Dialect
from backends.onnx.tools.grammar import MORE, PYTHON, TEXT, Grammar, literal
from backends.onnx.tools.python_syntax import WORD, is_word, read_call, write_call
from backends.onnx.tools.signatures import Signature, read_signatures
from backends.onnx.tools.stream import CallStream, Opening, Steps
from generated.models import ToolCall, ToolDefinition


class PythonListCalls(Dialect):
    """Llama 3.2's Python list. Built-in tools are called like others."""

    name = "python_list"

    def signatures(
        self, tools: Sequence[ToolDefinition], schemas: Mapping[str, Mapping[str, Any]] | None = None
    ) -> tuple[Signature, ...]:
        signatures = read_signatures(tools, schemas)
        for signature in signatures:
            _check_word(signature.name, "tool name", f"{signature.where}/tool_name")
            for parameter in signature.parameters:
                _check_word(parameter.name, "parameter name", parameter.where)
        return signatures

    def instructions(self, signatures: Sequence[Signature]) -> list[PromptSegment]:
        tools = "\n".join(signature.function_json() for signature in signatures)
        return [
            PromptSegment(
                f"You have access to the following functions:\n\n{tools}\n\n"
                "To call functions, reply with a list of calls in this form and add nothing:\n"
                "[function_name1(parameter1=value1, parameter2=value2), function_name2(parameter=value)]"
            )
        ]

    def write(self, calls: Sequence[ToolCall]) -> list[PromptSegment]:
        return [PromptSegment(f"[{', '.join(write_call(call.tool_name, call.arguments) for call in calls)}]")]

    def grammar(self, signatures: Sequence[Signature], *, required: bool) -> str:
        grammar = Grammar(PYTHON)
        by_letter: defaultdict[str, list[str]] = defaultdict(list)
        heads = []
        for number, signature in enumerate(signatures):
            name = signature.name
            grammar.add(f'arguments_{number}: {grammar.arguments(signature, number)} ")"')
            grammar.add(f"call_{number}: {literal(name + '(')} arguments_{number}")
            by_letter[name[0]].append(f"{literal(name[1:] + '(')} arguments_{number}")
            heads.append(f"head_{number} arguments_{number}")
        calls = " | ".join(f"call_{number}" for number in range(len(signatures)))
        grammar.add(f"call: {calls}", f'more: (", " call){MORE} "]"')
        if required:
            grammar.add('start: "[" call more')
            return grammar.lark()
        for number, (letter, rests) in enumerate(by_letter.items()):
            grammar.add(rf"letter_{number}[lazy]: /[ \t\r\n]*/ {literal('[' + letter)}")
            heads.append(f"letter_{number} ({' | '.join(rests)})")
        for number, signature in enumerate(signatures):
            grammar.add(f"head_{number}[lazy]: LINE {literal(f'[{signature.name}(')}")
        grammar.add(
            f"opened: {' | '.join(heads)}",
            "start: TEXT | opened more",
            r"LINE: /(?s:.*)\n[ \t]*/",
            TEXT,
        )
        return grammar.lark()

    def parser(self, signatures: Sequence[Signature], new_id: Callable[[], str] | None) -> CallStream:
        return _PythonListStream(signatures, new_id)


class _PythonListStream(CallStream):
    def __init__(self, signatures: Sequence[Signature], new_id: Callable[[], str] | None) -> None:
        self._names = {signature.name for signature in signatures}
        letters = "|".join(re.escape(letter) for letter in sorted({name[0] for name in self._names}))
        names = "|".join(re.escape(name) for name in sorted(self._names))
        openings = [
            Opening.of_atoms("start", [r"\[", f"(?:{letters})"]),
            Opening(re.compile(rf"\[(?:{names})\("), re.compile(rf"\[(?:{WORD})?\Z"), "line"),
        ]
        super().__init__(openings if self._names else [], new_id)

    def _calls(self) -> Steps:
        yield from self._skip("[")
        while True:
            yield from self._skip_blank()
            if self._buffer.startswith(","):
                yield from self._skip(",")
                continue
            if not self._buffer or self._buffer.startswith("]"):
                yield from self._skip("]")
                return
            self._start()
            complete = yield from self._bracketed("\"'")
            call = read_call("".join(self._raw)) if complete else None
            known = call is not None and call[0] in self._names
            self._end(call if known else None)
            if not known:
                return


def _check_word(name: str, what: str, where: str) -> None:
    if not is_word(name):
        raise Unsupported(
            f"the {what} `{name}` cannot be written in the python_list format; "
            "rename it, or ask for another tool_prompt_format",
            where=where,
        )
