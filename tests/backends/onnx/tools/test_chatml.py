"""Calls between ChatML's tags."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken

from backends.onnx.tools.chatml import ChatmlCalls
from tests.backends.onnx.tools.reading import (
    CHATML_TOKENS,
    CODE,
    NOW,
    PLOT,
    SEARCH,
    TOOLS,
    WEATHER,
    Calls,
    Judge,
    byte_tokenizer,
    outcome,
    tool_format,
    written,
)

FORM = tool_format(None)
PARIS = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TIME = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'

GOLDEN: list[tuple[Calls, str]] = [
    ([("get_weather", {"city": "Paris"})], PARIS),
    ([("now", {})], TIME),
    ([("get_weather", {"city": "Paris"}), ("now", {})], f"{PARIS}\n{TIME}"),
    (
        [("get_weather", {"city": 'Größe "x" \\ \n', "days": -3, "exact": True})],
        '<tool_call>\n{"name": "get_weather", "arguments": '
        '{"city": "Größe \\"x\\" \\\\ \\n", "days": -3, "exact": true}}\n</tool_call>',
    ),
    (
        [("plot", {"points": [1, -2.5, 0.001], "style": {"a": "b"}, "title": None, "extra": [{"x": [True, {}]}, []]})],
        '<tool_call>\n{"name": "plot", "arguments": {"points": [1, -2.5, 0.001], "style": {"a": "b"}, '
        '"title": null, "extra": [{"x": [true, {}]}, []]}}\n</tool_call>',
    ),
    (
        [("brave_search", {"query": "x"})],
        '<tool_call>\n{"name": "brave_search", "arguments": {"query": "x"}}\n</tool_call>',
    ),
    (
        [("code_interpreter", {"code": "print(1)\n"})],
        '<tool_call>\n{"name": "code_interpreter", "arguments": {"code": "print(1)\\n"}}\n</tool_call>',
    ),
]
ALL = (*TOOLS, SEARCH, CODE)


@pytest.mark.parametrize(("calls", "text"), GOLDEN)
def test_calls_are_written_read_and_allowed(calls: Calls, text: str, smollm2: Judge) -> None:
    assert "".join(s.text for s in ChatmlCalls(()).write(written(calls))) == text
    assert outcome(FORM, ALL, text) == calls
    assert smollm2.accepts(FORM.grammar(ALL, required=True), text)
    assert smollm2.accepts(FORM.grammar(ALL, required=False), text)
    assert smollm2.accepts(FORM.grammar(ALL, required=False), f"Let me look. {text}")


READ: list[tuple[str, list[Any]]] = [
    ("", []),
    (" no call \n", [" no call \n"]),
    (f"Let me look.\n{PARIS}\n{TIME}\nDone.\n", [
        "Let me look.", ("get_weather", {"city": "Paris"}), ("now", {}), "Done.\n",
    ]),
    ('<tool_call>{"arguments":{"city":"A"},"name":"get_weather"}</tool_call>', [("get_weather", {"city": "A"})]),
    ('<tool_call>{"name":"get_weather","parameters":{"city":"A"}}', [("get_weather", {"city": "A"})]),
    ('<tool_call>\n\n{"name": "now", "arguments": {}}\n\n</tool_call>\n', [("now", {})]),
    ('<tool_call>{"name": "other", "arguments": {}}</tool_call>x', [
        ("failed", '{"name": "other", "arguments": {}}'), "x",
    ]),
    ('<tool_call>{"name": "now"}</tool_call>', [("failed", '{"name": "now"}')]),
    ('<tool_call>{"name": ["now"], "arguments": {}}</tool_call>', [("failed", '{"name": ["now"], "arguments": {}}')]),
    ('<tool_call>{"name": "now", "arguments": 1}</tool_call>', [("failed", '{"name": "now", "arguments": 1}')]),
    ('<tool_call>{"name": "now", "arguments": {"a": NaN}}</tool_call>', [
        ("failed", '{"name": "now", "arguments": {"a": NaN}}'),
    ]),
    ('<tool_call>{"name": "now", "arguments": {"a": "\\ud800"}}', [
        ("failed", '{"name": "now", "arguments": {"a": "\\ud800"}}'),
    ]),
    ('<tool_call>\n{"name": "now", "argum', [("failed", '{"name": "now", "argum')]),
    ("<tool_call>", [("failed", "")]),
    ("<tool_call>now</tool_call> then", [("failed", "now"), "then"]),
    ("a <tool_cal", ["a <tool_cal"]),
    ("</tool_call> <tools>", ["</tool_call> <tools>"]),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "expected"), READ)
def test_an_answer_is_read_as(answer: str, expected: list[Any]) -> None:
    assert outcome(FORM, TOOLS, answer) == expected


REFUSED = [
    (PARIS.replace("get_weather", "get_wether"), '<tool_call>\n{"name": "get_we'),
    (PARIS.replace('"Paris"', "3"), '<tool_call>\n{"name": "get_weather", "arguments": {"city": '),
    (PARIS.replace('"city": "Paris"', ""), '<tool_call>\n{"name": "get_weather", "arguments": {'),
    (PARIS.replace('"city"', '"days"'), '<tool_call>\n{"name": "get_weather", "arguments": {"'),
    ("<tool_call>, which means", "<tool_call>"),
    (f"{PARIS} and so on", PARIS),
    (PARIS.replace("}}", "} }"), '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}'),
    (
        PARIS.replace('"Paris"', '"Paris", "days": "x"'),
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": ',
    ),
]


@pytest.mark.parametrize(("text", "allowed"), REFUSED)
@pytest.mark.parametrize("required", [True, False])
def test_a_call_that_is_begun_is_well_formed(text: str, allowed: str, required: bool, smollm2: Judge) -> None:
    told = smollm2.allowed(FORM.grammar((WEATHER, NOW), required=required), text).removesuffix(".")
    # A token may hold more than the last allowed character.
    assert allowed.startswith(told)
    assert len(told) >= len(allowed) - 3


def test_a_required_call_comes_first_and_an_answer_without_one_is_text(smollm2: Judge) -> None:
    required, auto = (FORM.grammar(TOOLS, required=required) for required in (True, False))
    assert smollm2.allowed(required, "Hello") == ""
    for text in ("", "Hello\n<tools> {}", 'a "quoted" <tool', "日本語 🙂"):
        assert smollm2.accepts(auto, text)


def test_tags_that_are_special_tokens_are_seen_written_and_allowed_as_such(chatml: Judge) -> None:
    form = tool_format(None, CHATML_TOKENS)
    assert form.visible_tokens == ("<tool_call>", "</tool_call>")
    segments = ChatmlCalls(CHATML_TOKENS).write(written([("now", {})]))
    assert [s.text for s in segments if s.special] == ["<tool_call>", "</tool_call>"]
    for tools in (TOOLS, (NOW,), (PLOT, NOW)):
        required, auto = (form.grammar(tools, required=required) for required in (True, False))
        assert chatml.accepts(required, f"{TIME}\n{TIME}")
        assert chatml.accepts(auto, f"Hm. {TIME}")
    assert chatml.allowed(form.grammar((WEATHER,), required=False), TIME) == '<tool_call>\n{"name": "'


def test_tags_that_are_tokens_though_not_special_are_plain_in_prompts_and_tokens_in_grammars() -> None:
    tokenizer = byte_tokenizer(CHATML_TOKENS[:2])
    tokenizer.add_tokens([AddedToken(tag, special=False) for tag in CHATML_TOKENS[2:]])
    judge = Judge(tokenizer, ["<|im_end|>"])
    calls = ChatmlCalls(CHATML_TOKENS[:2], CHATML_TOKENS)
    assert calls.visible_tokens == ()
    assert not any(segment.special for segment in calls.write(written([("now", {})])))
    signatures = calls.signatures((NOW,))
    assert judge.accepts(calls.grammar(signatures, required=True), f"{TIME}\n{TIME}")
    assert judge.accepts(calls.grammar(signatures, required=False), f"Hm. {TIME}")
    assert judge.allowed(calls.grammar(signatures, required=False), "<tool_call>x") == "<tool_call>"


def test_a_tag_in_plain_characters_begins_a_call_too_where_it_is_a_token(chatml: Judge) -> None:
    matcher = chatml.matcher(tool_format(None, CHATML_TOKENS).grammar((NOW,), required=False))
    plain = [i for c in "<tool_call>" for i in chatml.tokenizer.encode(c).ids]
    assert matcher.consume_tokens(plain)
    assert bytes(matcher.compute_ff_bytes()).startswith(b'\n{"name": "now", "arguments": {}}\n')
