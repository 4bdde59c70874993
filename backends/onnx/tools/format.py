"""The form in which a model is told of tools and calls them: the one place that knows all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol

from backends.errors import BadRequest
from backends.onnx.chat_template import ChatTemplate
from backends.onnx.tokenizer import PromptSegment
from backends.onnx.tools.chatml import ChatmlCalls
from backends.onnx.tools.dialect import Dialect
from backends.onnx.tools.function_tag import FunctionTagCalls
from backends.onnx.tools.json_calls import JsonCalls
from backends.onnx.tools.prompts import ChatInput, OwnWords, TemplateWords
from backends.onnx.tools.python_list import PythonListCalls
from backends.onnx.tools.python_tag import TAG
from backends.onnx.tools.signatures import Signature
from backends.onnx.tools.stream import Delta
from generated.models import Message, ToolChoice, ToolDefinition, ToolPromptFormat


class ToolCallParser(Protocol):
    """Reads one answer."""

    def push(self, text: str) -> list[Delta]:
        """What is known after more of the answer. Text that may be the beginning of a call is held back."""

    def finish(self) -> list[Delta]:
        """What was held back, at the end of the answer. A call that is not complete has failed."""


class _Words(Protocol):
    def chat(
        self, messages: Sequence[Message], signatures: Sequence[Signature], choice: ToolChoice, *, formatted: bool
    ) -> ChatInput: ...


Schemas = Mapping[str, Mapping[str, Any]]
"""JSON Schemas of arguments, as of `read_signatures`."""


class ToolFormat:
    """A way to write tool calls, and how the model hears of the tools. Safe to share between threads.

    name: `json`, `function_tag`, `python_list` or `chatml`. visible_tokens: special tokens whose text the parser must
    see among the text of the answer.
    """

    def __init__(self, dialect: Dialect, words: _Words) -> None:
        self._dialect = dialect
        self._words = words
        self.name = dialect.name
        self.visible_tokens = dialect.visible_tokens

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        choice: ToolChoice,
        *,
        schemas: Schemas | None = None,
        formatted: bool = False,
    ) -> ChatInput:
        """The conversation for the chat template. formatted: an answer without a call has a form of its own.

        Raises:
            BadRequest: a tool cannot be called, or a call is required and there is no tool. Unsupported: a tool that
            this format cannot write, an image in a message. `where` is the JSON pointer.
        """
        signatures = self._signatures(tools, schemas, required=choice == "required")
        return self._words.chat(messages, signatures, choice, formatted=formatted)

    def grammar(self, tools: Sequence[ToolDefinition], *, required: bool, schemas: Schemas | None = None) -> str:
        """Lark for llguidance over the whole answer: text without a call, or text that ends in one or more well-formed
        calls; with `required` calls alone. tools: at least one.

        Raises:
            BadRequest, Unsupported: as `render`.
        """
        return self._dialect.grammar(self._signatures(tools, schemas, required=required), required=required)

    def parser(self, tools: Sequence[ToolDefinition], new_id: Callable[[], str] | None = None) -> ToolCallParser:
        """A reader for one answer; `new_id` gives calls their ids, which are random UUIDs by default."""
        return self._dialect.parser(self._dialect.signatures(tools), new_id)

    def _signatures(
        self, tools: Sequence[ToolDefinition], schemas: Schemas | None, *, required: bool
    ) -> tuple[Signature, ...]:
        if required and not tools:
            raise BadRequest("tool_choice is `required` and there are no tools; give some", where="/tool_choice")
        return self._dialect.signatures(tools, schemas)


def select_format(
    template: ChatTemplate, requested: ToolPromptFormat | None, added_tokens: Collection[str] = ()
) -> ToolFormat:
    """The format that a request asks for. If it asks for none: the template's own, if it has one that is known here;
    else Llama's JSON for models with Llama's `<|python_tag|>` and tags with short signatures for all others.

    added_tokens: texts that are one token of the model whatever stands around them, special or not.
    """
    tokens = (template.special_tokens, added_tokens)
    if requested is None and (own := _own_format(template, added_tokens)) is not None:
        return own
    dialect: Dialect
    match requested:
        case "json":
            dialect = JsonCalls(*tokens)
        case "function_tag":
            dialect = FunctionTagCalls(*tokens)
        case "python_list":
            dialect = PythonListCalls(*tokens)
        case None:
            dialect = JsonCalls(*tokens) if TAG in template.special_tokens else FunctionTagCalls(*tokens, brief=True)
    return ToolFormat(dialect, OwnWords(dialect, takes_results=template.takes_results))


_FUNCTION = {
    "name": "probe_name",
    "description": "",
    "parameters": {"type": "object", "properties": {"probe_key": {"type": "string"}}, "required": ["probe_key"]},
}
_CALL = {"type": "function", "function": {"name": "probe_name", "arguments": {"probe_key": "probe_value"}}}
_TAGGED = re.compile(
    r'<tool_call>\s*\{"name": "probe_name", "arguments": \{"probe_key": "probe_value"\}\}\s*</tool_call>'
)
_JSON = re.compile(
    r'(?:assistant)?\s*\{(?:"type": "function", )?"name": "probe_name", '
    r'"(parameters|arguments)": \{"probe_key": "probe_value"\}\}'
)
_PYTHON = re.compile(r"""\[probe_name\(probe_key=(?:"probe_value"|'probe_value')\)\]""")
_FUNCTION_TAG = re.compile(r'<function=probe_name>\s*\{"probe_key": "probe_value"\}\s*</function>')


def _own_format(template: ChatTemplate, added_tokens: Collection[str]) -> ToolFormat | None:
    """The template's own format, recognised by how it writes a call; None if it has none or an unknown one."""
    if not template.takes_tools:
        return None
    segments = _written(template, calls=1)
    text = "".join(segment.text for segment in segments)
    tokens, tagged = (template.special_tokens, added_tokens), template.takes_builtin_tools
    dialect: Dialect
    if _TAGGED.search(text):
        dialect = ChatmlCalls(*tokens)
    elif _FUNCTION_TAG.search(text):
        dialect = FunctionTagCalls(*tokens, tagged=tagged)
    elif _PYTHON.search(text):
        dialect = PythonListCalls(*tokens)
    elif found := next(filter(None, (_JSON.match(segment.text) for segment in segments)), None):
        key: Literal["parameters", "arguments"] = "parameters" if found[1] == "parameters" else "arguments"
        dialect = JsonCalls(*tokens, tagged=tagged, key=key)
    else:
        return None
    one_call_each = not _written(template, calls=2)
    return ToolFormat(dialect, TemplateWords(takes_builtin_tools=tagged, one_call_each=one_call_each))


def _written(template: ChatTemplate, calls: int) -> list[PromptSegment]:
    """How the template writes that many calls in one message; nothing if it refuses them."""
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "probe"},
        {"role": "assistant", "content": "", "tool_calls": [{**_CALL, "id": f"probe000{i}"} for i in range(calls)]},
        *({"role": "tool", "content": "", "name": "probe_name", "tool_call_id": f"probe000{i}"} for i in range(calls)),
    ]
    try:
        return template.render(messages, tools=[{"type": "function", "function": _FUNCTION}])
    except BadRequest:
        return []
