"""What tests of tool formats share: tools, a judge of grammars, and answers read in any pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from backends.inference import TextDelta
from backends.onnx.chat_template import ChatTemplate
from backends.onnx.tools.chatml import ChatmlCalls
from backends.onnx.tools.format import ToolCallParser, ToolFormat, select_format
from backends.onnx.tools.prompts import OwnWords
from generated.models import ToolCall, ToolDefinition, ToolParamDefinition, ToolPromptFormat

LLAMA_TOKENS = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|python_tag|>",
)
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
Calls = Sequence[tuple[str, dict[str, Any]]]


def parameter(kind: str, **options: Any) -> ToolParamDefinition:
    return ToolParamDefinition(param_type=kind, **options)


WEATHER = ToolDefinition(
    tool_name="get_weather",
    description="Weather of a city",
    parameters={
        "city": parameter("string", description="Its name"),
        "days": parameter("int", required=False, default=1),
        "exact": parameter("bool", required=False),
    },
)
NOW = ToolDefinition(tool_name="now", description="The time", parameters={})
PLOT = ToolDefinition(
    tool_name="plot",
    parameters={
        "points": parameter("list[float]"),
        "style": parameter("dict[str, str]", required=False),
        "title": parameter("str | None", required=False),
        "extra": parameter("anything", required=False),
    },
)
SEARCH = ToolDefinition(tool_name="brave_search")
ALPHA = ToolDefinition(tool_name="wolfram_alpha")
CODE = ToolDefinition(tool_name="code_interpreter")
TOOLS = (WEATHER, NOW, PLOT)


def tool_format(requested: ToolPromptFormat | None, special_tokens: Sequence[str] = ()) -> ToolFormat:
    """A format for a template that says nothing of tools; ChatML's tags for None."""
    template = ChatTemplate("{{ messages }}", special_tokens=special_tokens)
    if requested is None:
        return ToolFormat(ChatmlCalls(special_tokens), OwnWords(ChatmlCalls(special_tokens), takes_results=False))
    return select_format(template, requested)


def written(calls: Calls) -> list[ToolCall]:
    return [ToolCall(call_id=str(i), tool_name=name, arguments=arguments) for i, (name, arguments) in enumerate(calls)]


def byte_tokenizer(special_tokens: Sequence[str]) -> Tokenizer:
    """One token for each byte, and the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special_tokens))
    return tokenizer


class Judge:
    """What a grammar lets a model with this tokenizer write. `ends`: tokens that end an answer."""

    def __init__(self, tokenizer: Tokenizer, ends: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.ends = [tokenizer.token_to_id(end) for end in ends]
        self.vocabulary = LLTokenizer(tokenizer.to_str(), eos_token=self.ends)

    def matcher(self, grammar: str) -> LLMatcher:
        assert LLMatcher.validate_grammar(grammar, self.vocabulary) == ""
        matcher = LLMatcher(self.vocabulary, grammar)
        assert not matcher.is_error(), matcher.get_error()
        return matcher

    def allowed(self, grammar: str, text: str) -> str:
        """The beginning of `text` that a model could write, with `.` behind it if it could end there."""
        matcher = self.matcher(grammar)
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        ids = ids[: matcher.validate_tokens(ids)]
        assert matcher.consume_tokens(ids)
        return self.tokenizer.decode(ids, skip_special_tokens=False) + ("." if matcher.is_accepting() else "")

    def accepts(self, grammar: str, text: str) -> bool:
        """Whether `text` could be the whole answer."""
        return self.allowed(grammar, text) == f"{text}."


def events(parser: ToolCallParser, pieces: Iterable[str]) -> list[tuple[Any, ...]]:
    """All that the parser tells of an answer that comes in `pieces`; neighbouring texts are joined."""
    told: list[tuple[Any, ...]] = []
    for delta in [*(delta for piece in pieces for delta in parser.push(piece)), *parser.finish()]:
        kind = "text" if isinstance(delta, TextDelta) else delta.status
        call = None if isinstance(delta, TextDelta) else delta.call
        if call is not None:
            told.append((kind, call.call_id, call.tool_name, call.arguments))
        elif kind in ("text", "in_progress") and told and told[-1][0] == kind:
            told[-1] = (kind, told[-1][1] + delta.text)
        else:
            told.append((kind, delta.text))
    return told


def outcome(form: ToolFormat, tools: Sequence[ToolDefinition], answer: str) -> list[Any]:
    """Texts as they are, calls as (name, arguments), a failed call as ("failed", raw)."""
    numbers = count()
    result: list[Any] = []
    for kind, *rest in events(form.parser(tools, lambda: f"call-{next(numbers)}"), [answer]):
        if kind == "text":
            result += rest
        elif kind == "succeeded":
            result.append(tuple(rest[1:]))
        elif kind == "failed":
            result.append(("failed", *rest))
    return result
