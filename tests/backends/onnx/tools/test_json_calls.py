"""Calls as bare JSON objects, and Llama 3.1's built-in tools behind their tag."""

from __future__ import annotations

from typing import Any

import pytest

from backends.onnx.tools.json_calls import JsonCalls
from tests.backends.onnx.tools.reading import (
    ALPHA,
    CODE,
    LLAMA_TOKENS,
    NOW,
    SEARCH,
    TOOLS,
    WEATHER,
    Calls,
    Judge,
    outcome,
    tool_format,
    written,
)

FORM = tool_format("json")
LLAMA = tool_format("json", LLAMA_TOKENS)
PARIS = '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}'
TIME = '{"type": "function", "name": "now", "parameters": {}}'
BUILTIN = (*TOOLS, SEARCH, ALPHA, CODE)

GOLDEN: list[tuple[Calls, str]] = [
    ([("get_weather", {"city": "Paris"})], PARIS),
    ([("get_weather", {"city": "Paris"}), ("now", {})], f"{PARIS}\n{TIME}"),
    (
        [("get_weather", {"city": "{[}", "days": 0, "exact": False})],
        '{"type": "function", "name": "get_weather", "parameters": {"city": "{[}", "days": 0, "exact": false}}',
    ),
    (
        [("plot", {"points": [], "extra": None})],
        '{"type": "function", "name": "plot", "parameters": {"points": [], "extra": null}}',
    ),
]


@pytest.mark.parametrize(("calls", "text"), GOLDEN)
def test_calls_are_written_read_and_allowed(calls: Calls, text: str, smollm2: Judge, llama: Judge) -> None:
    for form, special, judge in ((FORM, (), smollm2), (LLAMA, LLAMA_TOKENS, llama)):
        assert "".join(s.text for s in JsonCalls(special).write(written(calls))) == text
        assert outcome(form, TOOLS, text) == calls
        assert judge.accepts(form.grammar(TOOLS, required=True), text)
        assert judge.accepts(form.grammar(TOOLS, required=False), text)
        assert judge.accepts(form.grammar(TOOLS, required=False), f"Let me look.\n{text}")


TAGGED: list[tuple[Calls, str]] = [
    ([("brave_search", {"query": 'Köln "x"'})], '<|python_tag|>brave_search.call(query="Köln \\"x\\"")'),
    ([("wolfram_alpha", {"query": "2+2"})], '<|python_tag|>wolfram_alpha.call(query="2+2")'),
    ([("code_interpreter", {"code": "print(f(')'))\n"})], "<|python_tag|>print(f(')'))\n"),
    ([("code_interpreter", {"code": "{1: 2}"})], "<|python_tag|>{1: 2}"),
    ([("code_interpreter", {"code": "brave_search(1)"})], "<|python_tag|>brave_search(1)"),
]


@pytest.mark.parametrize(("calls", "text"), TAGGED)
def test_builtin_tools_are_called_behind_the_tag(calls: Calls, text: str, llama: Judge) -> None:
    segments = JsonCalls(LLAMA_TOKENS).write(written(calls))
    assert "".join(s.text for s in segments) == text
    assert [s.text for s in segments if s.special] == ["<|python_tag|>"]
    assert LLAMA.visible_tokens == ("<|python_tag|>",)
    for tools in (BUILTIN, (SEARCH, ALPHA, CODE)):
        assert outcome(LLAMA, tools, text) == calls
        assert llama.accepts(LLAMA.grammar(tools, required=True), text)
        assert llama.accepts(LLAMA.grammar(tools, required=False), text)
        assert llama.accepts(LLAMA.grammar(tools, required=False), f"I will look. {text}")


def test_a_model_without_the_tag_calls_builtin_tools_like_others(smollm2: Judge) -> None:
    text = '{"type": "function", "name": "brave_search", "parameters": {"query": "x"}}'
    calls = [("brave_search", {"query": "x"})]
    assert "".join(s.text for s in JsonCalls(()).write(written(calls))) == text
    assert outcome(FORM, BUILTIN, text) == calls
    assert smollm2.accepts(FORM.grammar(BUILTIN, required=True), text)
    assert outcome(FORM, BUILTIN, '<|python_tag|>brave_search.call(query="x")') == [
        '<|python_tag|>brave_search.call(query="x")'
    ]


def test_functions_may_be_called_behind_the_tag(llama: Judge) -> None:
    for tools in (TOOLS, BUILTIN):
        for call in (PARIS, PARIS.replace('"type": "function", ', "")):
            text = f"<|python_tag|>{call}; {TIME}"
            assert outcome(LLAMA, tools, text) == [("get_weather", {"city": "Paris"}), ("now", {})]
            assert llama.accepts(LLAMA.grammar(tools, required=False), text)


READ: list[tuple[str, list[Any]]] = [
    ('{"name": "now", "parameters": {}}', [("now", {})]),
    ('{"name":"get_weather","arguments":{"city":"A"}}', [("get_weather", {"city": "A"})]),
    ('{"type":"function","function":{"name":"now","parameters":{}}}', [("now", {})]),
    ('\n {\n  "name": "now",\n  "parameters": {}\n}\n', [("now", {})]),
    (f"{PARIS}; {TIME}", [("get_weather", {"city": "Paris"}), ("now", {})]),
    (f"{PARIS};{TIME}\n\n{TIME}", [("get_weather", {"city": "Paris"}), ("now", {}), ("now", {})]),
    (f"{PARIS}; and more", [("get_weather", {"city": "Paris"}), "; and more"]),
    (f"Look:\n{TIME}", ["Look:", ("now", {})]),
    (f"Look: {TIME}", [f"Look: {TIME}"]),
    ('{"names": 1}\n{"type": "object"}', ['{"names": 1}\n{"type": "object"}']),
    ('{"name": "Ada", "age": 36}', [("failed", '{"name": "Ada", "age": 36}')]),
    ('{"name": "now", "parameters": {', [("failed", '{"name": "now", "parameters": {')]),
    (f"; {TIME}", [f"; {TIME}"]),
    ('{"na', ['{"na']),
    ("{", ["{"]),
    ("[{}]", ["[{}]"]),
]


@pytest.mark.parametrize(("answer", "expected"), READ)
@pytest.mark.parametrize("form", [FORM, LLAMA])
def test_an_answer_is_read_as(form: Any, answer: str, expected: list[Any]) -> None:
    assert outcome(form, TOOLS, answer) == expected


@pytest.mark.parametrize(
    ("tools", "answer", "expected"),
    [
        ((CODE,), "<|python_tag|>", [("failed", "")]),
        ((SEARCH,), "<|python_tag|>print(1)", [("failed", "print(1)")]),
        ((SEARCH,), '<|python_tag|>brave_search.call(query="x', [("failed", 'brave_search.call(query="x')]),
        ((SEARCH,), "<|python_tag|>brave_search.call(x)", [("failed", "brave_search.call(x)")]),
        ((SEARCH, CODE), "<|python_tag|>brave_sea", [("code_interpreter", {"code": "brave_sea"})]),
        ((WEATHER, CODE), '<|python_tag|>{"a": 1}', [("code_interpreter", {"code": '{"a": 1}'})]),
    ],
)
def test_behind_the_tag_is_read_as(tools: Any, answer: str, expected: list[Any]) -> None:
    assert outcome(LLAMA, tools, answer) == expected


REFUSED = [
    (PARIS.replace("get_weather", "get_wether"), '{"type": "function", "name": "get_we'),
    (PARIS.replace('"Paris"', "[]"), '{"type": "function", "name": "get_weather", "parameters": {"city": '),
    (PARIS.replace('"city": "Paris"', ""), '{"type": "function", "name": "get_weather", "parameters": {'),
    ('{"name": "Ada"}', '{"name": "'),
    (f"{PARIS}\nDone", f"{PARIS}\n"),
]
REFUSED_BEHIND_TAG = [
    ("<|python_tag|>brave_search.call(x)", "<|python_tag|>brave_search.call("),
    ("<|python_tag|>wolfram_alpha.call(query=1)", "<|python_tag|>wolfram_alpha.call(query="),
    ('<|python_tag|>brave_search.call(query="x"), a', '<|python_tag|>brave_search.call(query="x").'),
    ('<|python_tag|>{"name": "other"', '<|python_tag|>{"name": "'),
    ("<|python_tag|><|python_tag|>", "<|python_tag|>"),
]


@pytest.mark.parametrize(("text", "allowed"), [*REFUSED, *REFUSED_BEHIND_TAG])
@pytest.mark.parametrize("required", [True, False])
def test_a_call_that_is_begun_is_well_formed(text: str, allowed: str, required: bool, llama: Judge) -> None:
    told = llama.allowed(LLAMA.grammar(BUILTIN, required=required), text)
    assert told.removesuffix(".") == allowed.removesuffix(".")


def test_other_json_is_text(smollm2: Judge) -> None:
    grammar = FORM.grammar(TOOLS, required=False)
    for text in ('{"age": 36}', '[{"name": 1}]', 'As JSON: {"name": "Ada"}', "```\n{\n```"):
        assert smollm2.accepts(grammar, text)
        assert outcome(FORM, TOOLS, text) == [text]


def test_an_answer_has_at_most_sixteen_calls(llama: Judge) -> None:
    grammar = LLAMA.grammar((NOW,), required=True)
    assert llama.accepts(grammar, "\n".join([TIME] * 16))
    assert llama.allowed(grammar, "\n".join([TIME] * 17)) == "\n".join([TIME] * 16) + "."
