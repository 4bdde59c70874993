"""Calls as a Python list."""

from __future__ import annotations

from typing import Any

import pytest

from backends.errors import Unsupported
from backends.onnx.tools.python_list import PythonListCalls
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

FORM = tool_format("python_list")
PARIS = '[get_weather(city="Paris")]'
ODD = ToolDefinition(tool_name="mcp::fs/read-file", parameters={"from": parameter("str"), "größe": parameter("int")})
ALL = (*TOOLS, SEARCH, CODE, ODD)

GOLDEN: list[tuple[Calls, str]] = [
    ([("get_weather", {"city": "Paris"})], PARIS),
    ([("now", {})], "[now()]"),
    ([("get_weather", {"city": "Paris"}), ("now", {})], '[get_weather(city="Paris"), now()]'),
    (
        [("get_weather", {"city": "')]\" \\ \n", "days": -3, "exact": True})],
        '[get_weather(city="\')]\\" \\\\ \\n", days=-3, exact=True)]',
    ),
    (
        [("plot", {"points": [1, -2.5], "style": {"a": "b, (c"}, "title": None, "extra": [{"x": [False, {}]}, []]})],
        '[plot(points=[1, -2.5], style={"a": "b, (c"}, title=None, extra=[{"x": [False, {}]}, []])]',
    ),
    ([("brave_search", {"query": "x"})], '[brave_search(query="x")]'),
    ([("code_interpreter", {"code": "print(1)"})], '[code_interpreter(code="print(1)")]'),
    ([("mcp::fs/read-file", {"from": "a", "größe": 1})], '[mcp::fs/read-file(from="a", größe=1)]'),
]


@pytest.mark.parametrize(("calls", "text"), GOLDEN)
def test_calls_are_written_read_and_allowed(calls: Calls, text: str, smollm2: Judge, llama: Judge) -> None:
    assert "".join(s.text for s in PythonListCalls(LLAMA_TOKENS).write(written(calls))) == text
    assert outcome(FORM, ALL, text) == calls
    for judge in (smollm2, llama):
        assert judge.accepts(FORM.grammar(ALL, required=True), text)
        assert judge.accepts(FORM.grammar(ALL, required=False), text)
        assert judge.accepts(FORM.grammar(ALL, required=False), f"\n{text}")
        assert judge.accepts(FORM.grammar(ALL, required=False), f"Let me look.\n{text}")


READ: list[tuple[str, list[Any]]] = [
    ("[get_weather(city='Paris', )]", [("get_weather", {"city": "Paris"})]),
    ("[now( ) , now() ]\n", [("now", {}), ("now", {})]),
    ("[now(),\n get_weather(city = 'A'\n)] Done", [("now", {}), ("get_weather", {"city": "A"}), "Done"]),
    ("Look:\n [now()]", ["Look:", ("now", {})]),
    ("Look: [now()]", ["Look: [now()]"]),
    ("[1, 2]", ["[1, 2]"]),
    ("[x](y)", ["[x](y)"]),
    ("a\n[now]", ["a\n[now]"]),
    ("[get_wether(city='A')]", [("failed", "get_wether(city='A')"), "]"]),
    ("[get_weather('A')]", [("failed", "get_weather('A')"), "]"]),
    ("[get_weather(city=A)]", [("failed", "get_weather(city=A)"), "]"]),
    ("[get_weather(city=__import__('os'))]", [("failed", "get_weather(city=__import__('os'))"), "]"]),
    ("[get_weather(city={1: 2})]", [("failed", "get_weather(city={1: 2})"), "]"]),
    ("[get_weather(city=1e999)]", [("failed", "get_weather(city=1e999)"), "]"]),
    ("[now(), get_weather(city='A", [("now", {}), ("failed", "get_weather(city='A")]),
    ("[now(), ", [("now", {})]),
    ("[n", [("failed", "n")]),
    ("[", ["["]),
]


@pytest.mark.parametrize(("answer", "expected"), READ)
def test_an_answer_is_read_as(answer: str, expected: list[Any]) -> None:
    assert outcome(FORM, TOOLS, answer) == expected


REFUSED = [
    ("[get_wether()]", "[get_we"),
    ("[get_weather()]", "[get_weather("),
    ("[get_weather(city=3)]", "[get_weather(city="),
    ('[get_weather(city="A", days="x")]', '[get_weather(city="A", days='),
    ('[get_weather(city="A", exact=true)]', '[get_weather(city="A", exact='),
    ("[now(1)]", "[now("),
    ("[now()] more", "[now()]"),
    ("[now(), later()]", "[now(), "),
]


@pytest.mark.parametrize(("text", "allowed"), REFUSED)
@pytest.mark.parametrize("required", [True, False])
def test_a_call_that_is_begun_is_well_formed(text: str, allowed: str, required: bool, llama: Judge) -> None:
    assert llama.allowed(FORM.grammar((WEATHER, NOW), required=required), text).removesuffix(".") == allowed


def test_a_call_that_begins_a_later_line_is_well_formed_too(llama: Judge) -> None:
    grammar = FORM.grammar((WEATHER, NOW), required=False)
    assert llama.allowed(grammar, "Hm.\n [get_weather(days=1)]") == "Hm.\n [get_weather("


def test_other_lists_are_text(llama: Judge) -> None:
    grammar = FORM.grammar(TOOLS, required=False)
    for text in ("[1, 2]", "[x](y)", '["now()"]', "See [now()]", "a\n[now]", "[]"):
        assert llama.accepts(grammar, text)
        assert outcome(FORM, TOOLS, text) == [text]


@pytest.mark.parametrize("word", ["a b", "a(b", "a=b", "[a", 'a"', "a,b"])
def test_what_python_could_not_tell_apart_is_refused_with_its_place(word: str) -> None:
    name = ToolDefinition(tool_name=word)
    key = ToolDefinition(tool_name="f", parameters={word: parameter("int")})
    for tools, where in (((NOW, name), "/tools/1/tool_name"), ((key,), f"/tools/0/parameters/{word}")):
        for use in (
            lambda: FORM.grammar(tools, required=False),  # noqa: B023
            lambda: FORM.parser(tools),  # noqa: B023
            lambda: FORM.render((), tools, "auto"),  # noqa: B023
        ):
            with pytest.raises(Unsupported, match="python_list") as refusal:
                use()
            assert refusal.value.where == where
