"""Answers that are calls or what a response format asks for, in every form of calls, on two vocabularies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from backends.inference import TextDelta
from backends.onnx.calls_or_format import CallsOrFormat, HeldCalls
from backends.onnx.grammar import GrammarCompiler
from backends.onnx.tools.format import ToolFormat
from generated.models import GrammarResponseFormat, JsonSchemaResponseFormat, ResponseFormat, ToolPromptFormat
from tests.backends.onnx.tools.reading import CODE, SEARCH, TOOLS, Judge, tool_format

PERSON = JsonSchemaResponseFormat(
    json_schema={
        "type": "object",
        "properties": {"name": {"type": "string"}, "parameters": {}},
        "required": ["name"],
        "additionalProperties": False,
    }
)
"""What JSON calls look like at first sight."""
NUMBERS = JsonSchemaResponseFormat(json_schema={"type": "array", "items": {"type": "integer"}})
ANY_TEXT = GrammarResponseFormat(bnf={"lark": "start: /(?s:.*)/"})
FORMATS: tuple[ToolPromptFormat | None, ...] = ("json", "function_tag", "python_list", None)
CALLS: dict[ToolPromptFormat | None, str] = {
    "json": '{"name": "get_weather", "parameters": {"city": "Paris"}}',
    "function_tag": '<function=get_weather>{"city": "Paris"}</function>',
    "python_list": '[get_weather(city="Paris")]',
    None: '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
}


class Writing:
    """An answer as it is written token by token. `told`: texts, and calls as (name, arguments)."""

    def __init__(self, judge: Judge, form: ToolFormat, response_format: ResponseFormat, tools: Any = TOOLS) -> None:
        grammars = GrammarCompiler(judge.tokenizer.to_str(), judge.ends, judge.tokenizer.get_vocab_size())
        calls = grammars.compile(form.grammar(tools, required=True), where="/tools")
        self.constraint = CallsOrFormat(calls, grammars.response_format(response_format))
        self.parser = HeldCalls(self.constraint, form.parser(tools))
        self.judge = judge
        self.told: list[Any] = []

    def allows(self, token: int) -> bool:
        logits = np.zeros(self.judge.tokenizer.get_vocab_size(), np.float32)
        return bool(np.isfinite(self.constraint.masked(logits)[token]))

    def write(self, text: str) -> bool:
        """Whether all of it may be written."""
        ids = self.judge.tokenizer.encode(text, add_special_tokens=False).ids
        for token in ids:
            if self.constraint.complete or not self.allows(token):
                return False
            forced = self.constraint.forced()
            assert not forced or forced[0] == token
            self.constraint.accept(token)
            self._tell(self.parser.push(self.judge.tokenizer.decode([token], skip_special_tokens=False)))
        return True

    def end(self) -> list[Any]:
        """All that was told, if the answer may end here."""
        assert self.constraint.complete or self.allows(self.judge.ends[0])
        self._tell(self.parser.finish())
        text = "".join(told for told in self.told if isinstance(told, str))
        return [*([text] if text else []), *(told for told in self.told if not isinstance(told, str))]

    def _tell(self, deltas: Sequence[Any]) -> None:
        for delta in deltas:
            if isinstance(delta, TextDelta):
                self.told.append(delta.text)
            elif delta.call is not None:
                self.told.append((delta.call.tool_name, delta.call.arguments))
            else:
                assert delta.status != "failed"


@pytest.fixture(params=["smollm2", "llama", "chatml"])
def judge(request: pytest.FixtureRequest) -> Judge:
    found: Judge = request.getfixturevalue(request.param)
    return found


def form_of(judge: Judge, form: ToolPromptFormat | None) -> ToolFormat:
    special = [token.content for token in judge.tokenizer.get_added_tokens_decoder().values() if token.special]
    return tool_format(form, special)


@pytest.mark.parametrize("form", FORMATS)
def test_a_call_or_the_format_can_be_written_and_nothing_else(form: ToolPromptFormat | None, judge: Judge) -> None:
    spelled = form_of(judge, form)
    call = Writing(judge, spelled, PERSON)
    assert call.write(CALLS[form])
    assert call.end() == [("get_weather", {"city": "Paris"})]
    for text in ('{"name":"Ann"}', '{"name":"get_weather"}', '{"name":"now","parameters":[1]}'):
        answer = Writing(judge, spelled, PERSON)
        assert answer.write(text)
        assert answer.end() == [text]
    numbers = Writing(judge, spelled, NUMBERS)
    assert numbers.write("[1,2]")
    assert numbers.end() == ["[1,2]"]
    broken = CALLS[form].replace("city", "town")
    for text in ("Hello", f"Well: {CALLS[form]}", broken, f'{CALLS[form]}{{"name":"Ann"}}', '{"name":5}'):
        assert not Writing(judge, spelled, PERSON).write(text), text


@pytest.mark.parametrize("form", FORMATS)
def test_what_both_allow_is_a_call_if_it_is_whole(form: ToolPromptFormat | None, smollm2: Judge) -> None:
    spelled = form_of(smollm2, form)
    both = Writing(smollm2, spelled, ANY_TEXT)
    assert both.write(CALLS[form])
    assert both.told == []
    assert both.end() == [("get_weather", {"city": "Paris"})]
    for text in (CALLS[form][:-1], f"{CALLS[form]} and more", CALLS[form].replace("city", "town"), "Hello", ""):
        answer = Writing(smollm2, spelled, ANY_TEXT)
        assert answer.write(text)
        assert "".join(answer.end()) == text


def test_what_is_decided_is_told_at_once(llama: Judge) -> None:
    answer = Writing(llama, tool_format("json"), PERSON)
    assert answer.write('{"name":')
    assert answer.told == []
    assert answer.write('"')
    assert "".join(answer.told) == '{"name":"'
    assert answer.write("A")
    assert answer.told[-1] == "A"


def test_both_must_agree_on_what_is_forced(llama: Judge) -> None:
    answer = Writing(llama, tool_format("json"), PERSON)
    assert llama.tokenizer.decode(answer.constraint.forced()) == '{"'
    assert Writing(llama, tool_format("python_list"), PERSON).constraint.forced() == []


def test_builtin_tools_and_several_calls_are_calls_too(llama: Judge) -> None:
    form = form_of(llama, "json")
    for text, calls in (
        ('<|python_tag|>brave_search.call(query="a")', [("brave_search", {"query": "a"})]),
        ("<|python_tag|>print(1)", [("code_interpreter", {"code": "print(1)"})]),
    ):
        answer = Writing(llama, form, PERSON, (SEARCH, CODE))
        assert answer.write(text)
        assert answer.end() == calls
    two = Writing(llama, form, PERSON)
    assert two.write(f"{CALLS['json']}\n{json.dumps({'name': 'now', 'parameters': {}})}")
    assert two.end() == [("get_weather", {"city": "Paris"}), ("now", {})]
