"""Llama's calls behind `<|python_tag|>`: searches as a Python call, and code that runs as it stands.

    <|python_tag|>brave_search.call(query="weather in Paris")
    <|python_tag|>print(6 * 7)

Source: https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/prompt_format.md
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar

from backends.onnx.tokenizer import PromptSegment
from backends.onnx.tools.dialect import Dialect
from backends.onnx.tools.grammar import PYTHON, Grammar, literal
from backends.onnx.tools.python_syntax import read_call, write_call
from backends.onnx.tools.signatures import BUILTIN_PARAMETERS, CODE_INTERPRETER, Signature
from backends.onnx.tools.stream import CallStream, Opening, Steps
from generated.models import ToolCall

TAG = "<|python_tag|>"


class PythonTagDialect(Dialect):
    """A form in which the built-in tools are called behind the tag, if the model has it as a token.

    tagged: False if the model's template knows built-in tools only as functions like others.
    """

    marks = (TAG,)
    separator: ClassVar[str]
    """Stands between two calls."""

    def __init__(
        self, special_tokens: Collection[str], added_tokens: Collection[str] = (), *, tagged: bool = True
    ) -> None:
        super().__init__(special_tokens, added_tokens)
        self._tagged = tagged and TAG in self.tokens

    def custom(self, signatures: Sequence[Signature]) -> list[Signature]:
        """The tools that are called without the tag."""
        return [s for s in signatures if not (s.builtin and self._tagged)]

    def tagged(self, signatures: Sequence[Signature]) -> list[Signature]:
        """The tools that are called behind the tag."""
        return [s for s in signatures if s.builtin and self._tagged]

    def instructions(self, signatures: Sequence[Signature]) -> list[PromptSegment]:
        parts = []
        if tagged := self.tagged(signatures):
            searches = ", ".join(s.name for s in tagged if s.name != CODE_INTERPRETER)
            parts.append("Environment: ipython" + (f"\nTools: {searches}" if searches else ""))
        if custom := self.custom(signatures):
            parts.append(self.custom_instructions(custom))
        return [PromptSegment("\n\n".join(parts))]

    def write(self, calls: Sequence[ToolCall]) -> list[PromptSegment]:
        segments: list[PromptSegment] = []
        for position, call in enumerate(calls):
            if position:
                segments.append(PromptSegment(self.separator))
            if not self._tagged or call.arguments.keys() != BUILTIN_PARAMETERS.get(call.tool_name):
                segments.append(PromptSegment(self.write_custom(call)))
            elif call.tool_name == CODE_INTERPRETER:
                segments += [self.mark(TAG), PromptSegment(str(call.arguments["code"]))]
            else:
                segments += [self.mark(TAG), PromptSegment(write_call(f"{call.tool_name}.call", call.arguments))]
        return segments

    @abstractmethod
    def custom_instructions(self, signatures: Sequence[Signature]) -> str:
        """What to tell a model about the tools that are called without the tag."""

    @abstractmethod
    def write_custom(self, call: ToolCall) -> str:
        """The call of such a tool."""

    def add_tagged(self, grammar: Grammar, signatures: Sequence[Signature], required: bool, other: str) -> list[str]:
        """Alternatives of the rule for an answer in which a call comes behind the tag, none if no tool is called so.

        other: rule for what else may stand behind it, a JSON object that begins with `name` or `type`, or "".
        """
        alternatives = [other] if other else []
        unlike = [r"\{[ \t\r\n]*\"(name|type)"] if other else []
        tagged = self.tagged(signatures)
        for signature in tagged:
            if signature.name != CODE_INTERPRETER:
                alternatives.append(f'{literal(f"{signature.name}.call(query=")} PYTHON_STRING ")"')
                unlike.append(rf"{signature.name}\.call\(")
                grammar.terminal("PYTHON_STRING", PYTHON.string())
        if any(signature.name == CODE_INTERPRETER for signature in tagged):
            alternatives.append("CODE")
            # Code is any text, so it must not begin as other calls do, or those could be written wrong as code.
            grammar.terminal("CODE", "/(?s:.+)/" + "".join(f" & ~/({begin})(?s:.*)/" for begin in unlike))
        if not alternatives:
            return []
        grammar.add("behind_tag: " + " | ".join(alternatives))
        if required:
            return [f"{TAG} behind_tag"]
        # The tag in plain characters is a beginning too: `CallStream` cannot tell the two.
        grammar.add(f'spelled_tag[lazy]: TEXT "{TAG}"')
        return [f"TEXT {TAG} behind_tag", "spelled_tag behind_tag"]


class PythonTagStream(CallStream):
    """Reads calls behind the tag; what is called without it is left to the format.

    json_behind_tag: whether the format's own calls may come behind the tag too.
    """

    def __init__(
        self,
        dialect: PythonTagDialect,
        signatures: Sequence[Signature],
        opening: Opening,
        new_id: Callable[[], str] | None,
        *,
        json_behind_tag: bool,
    ) -> None:
        tagged, self._names = dialect.tagged(signatures), {s.name for s in dialect.custom(signatures)}
        self._behind_tag = opening if json_behind_tag and self._names else None
        self._runs_code = any(s.name == CODE_INTERPRETER for s in tagged)
        self._searches = {f"{s.name}.call": s.name for s in tagged if s.name != CODE_INTERPRETER}
        openings = [opening] if self._names else []
        if tagged or self._behind_tag:
            openings.append(Opening.of_text(TAG))
        super().__init__(openings, new_id)

    @abstractmethod
    def _custom_calls(self) -> Steps:
        """Read calls without the tag; the buffer begins with the format's own opening."""

    def _calls(self) -> Steps:
        if not self._buffer.startswith(TAG):
            yield from self._custom_calls()
            return
        yield from self._skip(TAG)
        beginnings = tuple(f"{name}(" for name in self._searches)
        while not self._ended and self._undecided(beginnings):
            yield
        if self._behind_tag and self._behind_tag.whole.match(self._buffer):
            yield from self._custom_calls()
            return
        self._start()
        if self._buffer.startswith(beginnings):
            complete = yield from self._bracketed("\"'")
            call = read_call("".join(self._raw)) if complete else None
            self._end(None if call is None else (self._searches[call[0]], call[1]))
        else:
            yield from self._to_the_end()
            code = "".join(self._raw)
            self._end((CODE_INTERPRETER, {"code": code}) if self._runs_code and code else None)

    def _undecided(self, beginnings: Sequence[str]) -> bool:
        if any(beginning.startswith(self._buffer) for beginning in beginnings):
            return True
        opening = self._behind_tag
        if opening is None or opening.whole.match(self._buffer):
            return False
        return not self._buffer or opening.partial.match(self._buffer) is not None
