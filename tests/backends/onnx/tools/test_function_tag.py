"""Calls in a tag that names the function."""

from __future__ import annotations

from typing import Any

import pytest

from backends.onnx.tools.function_tag import FunctionTagCalls
from generated.models import ToolDefinition
from tests.backends.onnx.tools.reading import (
    CODE,
    LLAMA_TOKENS,
    NOW,
    SEARCH,
    TOOLS,
    WEATHER,
    Calls,
    Judge,
    outcome,
    parameter,
    tool_format,
    written,
)

FORM = tool_format("function_tag")
LLAMA = tool_format("function_tag", LLAMA_TOKENS)
PARIS = '<function=get_weather>{"city": "Paris"}</function>'
TIME = "<function=now>{}</function>"

GOLDEN: list[tuple[Calls, str]] = [
    ([("get_weather", {"city": "Paris"})], PARIS),
    ([("get_weather", {"city": "Paris"}), ("now", {})], f"{PARIS}\n{TIME}"),
    (
        [("get_weather", {"city": "</function>", "days": 12, "exact": True})],
        '<function=get_weather>{"city": "</function>", "days": 12, "exact": true}</function>',
    ),
]


@pytest.mark.parametrize(("calls", "text"), GOLDEN)
def test_calls_are_written_read_and_allowed(calls: Calls, text: str, smollm2: Judge, llama: Judge) -> None:
    for form, special, judge in ((FORM, (), smollm2), (LLAMA, LLAMA_TOKENS, llama)):
        assert "".join(s.text for s in FunctionTagCalls(special).write(written(calls))) == text
        assert outcome(form, TOOLS, text) == calls
        assert judge.accepts(form.grammar(TOOLS, required=True), text)
        assert judge.accepts(form.grammar(TOOLS, required=False), text)
        assert judge.accepts(form.grammar(TOOLS, required=False), f"Let me look: {text}")


READ: list[tuple[str, list[Any]]] = [
    (f"Look: {PARIS}{TIME} done", ["Look:", ("get_weather", {"city": "Paris"}), ("now", {}), "done"]),
    ('<function=get_weather> {"city":"A"} </function>', [("get_weather", {"city": "A"})]),
    ("<function=now>{}", [("now", {})]),
    ("<function=other>{}</function> x", [("failed", "<function=other>{}"), "x"]),
    ("<function=now>x</function>", [("failed", "<function=now>x")]),
    ("<function=now>{]", [("failed", "<function=now>{]")]),
    ("<function=no", [("failed", "<function=no")]),
    ("a <func", ["a <func"]),
    ("<function>", ["<function>"]),
]


@pytest.mark.parametrize(("answer", "expected"), READ)
def test_an_answer_is_read_as(answer: str, expected: list[Any]) -> None:
    assert outcome(FORM, TOOLS, answer) == expected


REFUSED = [
    (PARIS.replace("weather", "wether"), "<function=get_we"),
    (PARIS.replace('"Paris"', "true"), '<function=get_weather>{"city": '),
    (PARIS.replace('"city": "Paris"', ""), "<function=get_weather>{"),
    ("<function=> is a tag", "<function="),
    (f"{PARIS} more", PARIS),
]


@pytest.mark.parametrize(("text", "allowed"), REFUSED)
@pytest.mark.parametrize("required", [True, False])
def test_a_call_that_is_begun_is_well_formed(text: str, allowed: str, required: bool, llama: Judge) -> None:
    assert llama.allowed(FORM.grammar((WEATHER, NOW), required=required), text).removesuffix(".") == allowed


def test_builtin_tools_are_called_behind_the_tag(llama: Judge) -> None:
    tools = (WEATHER, SEARCH, CODE)
    for text, call in (
        ('<|python_tag|>brave_search.call(query="x")', ("brave_search", {"query": "x"})),
        ("<|python_tag|>1 + 1", ("code_interpreter", {"code": "1 + 1"})),
    ):
        assert "".join(s.text for s in FunctionTagCalls(LLAMA_TOKENS).write(written([call]))) == text
        assert outcome(LLAMA, tools, text) == [call]
        assert llama.accepts(LLAMA.grammar(tools, required=True), text)
        assert llama.accepts(LLAMA.grammar(tools, required=False), f"Hm. {text}")
    assert llama.allowed(LLAMA.grammar((WEATHER,), required=False), "<|python_tag|>1") == "."


@pytest.mark.parametrize("name", ["a>b", 'a"b', "a\\b", "a b", "größe", "a::b/c", "</function>", "%json {}"])
def test_names_may_hold_whatever_can_be_printed(name: str, llama: Judge) -> None:
    tools = (
        ToolDefinition(tool_name="a"),
        ToolDefinition(tool_name=f"x{name}", parameters={name: parameter("string")}),
    )
    call = (f"x{name}", {name: name})
    for form in (FORM, tool_format("json"), tool_format(None)):
        text = "".join(s.text for s in form._dialect.write(written([call])))
        assert outcome(form, tools, text) == [call]
        assert llama.accepts(form.grammar(tools, required=True), text)
        assert llama.accepts(form.grammar(tools, required=False), text)
