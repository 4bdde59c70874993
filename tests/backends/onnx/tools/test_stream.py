"""Answers in pieces: how they are cut never matters, and what a grammar lets a model write is read without fail."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from backends.inference import ToolCallDelta
from backends.onnx.tools.format import ToolFormat
from tests.backends.onnx.tools.reading import (
    CODE,
    LLAMA_TOKENS,
    NOW,
    SEARCH,
    TOOLS,
    WEATHER,
    Judge,
    events,
    outcome,
    tool_format,
)

FORMS = {form.name: form for form in map(tool_format, ("json", "function_tag", "python_list", None))}
FORMS |= {f"llama {name}": tool_format(name, LLAMA_TOKENS) for name in ("json", "function_tag")}
ALL = (*TOOLS, SEARCH, CODE)

PIECES = [
    "Hello ", "\n", " ", "; ", "{", "}", "[", "]", "<", '"', "\\", "日本 ", "x" * 30,
    '{"name": "now", "parameters": {}}', '{"type": "function", "name": "get_weather", "parameters": {"city": "A}"}}',
    '{"name', '{ "type" : "function"', '{"age": 1}',
    "<function=now>{}</function>", '<function=get_weather>{"city": "\\"<"}</function>', "<function", "</function>",
    "[now()]", "[now(), get_weather(city='a]b', days=2)]", "[get_", "[now(", "[x]",
    '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', "<tool_call>", "</tool_call>", "<tool_",
    "<|python_tag|>", '<|python_tag|>brave_search.call(query="x")', "<|python_tag|>print(1)", "<|pyth",
    "brave_search.c",
]  # fmt: skip
ANSWERS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


def ids() -> Any:
    return iter(map(str, range(1000))).__next__


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(answer=ANSWERS, data=st.data())
def test_the_cutting_of_an_answer_changes_nothing(form: ToolFormat, answer: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=12)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    whole = events(form.parser(ALL, ids()), [answer])
    assert events(form.parser(ALL, ids()), pieces) == whole
    assert events(form.parser(ALL, ids()), answer) == whole


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(answer=ANSWERS)
def test_every_call_starts_and_ends_once_with_its_text_between(form: ToolFormat, answer: str) -> None:
    open_call: list[str] | None = None
    for kind, *rest in events(form.parser(ALL), [answer]):
        if kind == "started":
            assert open_call is None
            open_call = []
        elif kind == "text":
            assert open_call is None
        else:
            assert open_call is not None
            if kind == "in_progress":
                open_call += rest
                continue
            if kind == "failed":
                assert rest == ["".join(open_call)]
            open_call = None
    assert open_call is None


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(answer=st.text(alphabet="az \n.,{}[]<>\"'é🙂"))
def test_an_answer_without_a_call_is_told_as_it_is(form: ToolFormat, answer: str) -> None:
    assert "".join(outcome(form, ALL, answer)) == answer


def test_text_is_told_at_once_and_what_may_become_a_call_is_held_back() -> None:
    parser = FORMS["chatml"].parser(TOOLS, ids())
    told = [
        parser.push(piece) for piece in ("Hello", " there", "\n<too", "l_box>", " <tool_call>", '{"name": "no', 'w"')
    ]
    assert [[delta.text for delta in deltas] for deltas in told] == [
        ["Hello"],
        [" there"],
        [],
        ["\n<tool_box>"],
        [""],
        ['{"name": "no'],
        ['w"'],
    ]
    assert told[4] == [ToolCallDelta("started")]
    assert parser.finish() == [ToolCallDelta("failed", '{"name": "now"')]
    assert parser.push("more") == []
    assert parser.finish() == []


def test_ids_are_unlike_each_other_unless_they_are_given() -> None:
    answer = "[now(), now()]"
    calls = [event[1] for event in events(FORMS["python_list"].parser(TOOLS), [answer]) if event[0] == "succeeded"]
    assert len(set(calls)) == 2
    given_ids = events(FORMS["python_list"].parser(TOOLS, ids()), [answer])
    assert [event[1] for event in given_ids if event[0] == "succeeded"] == ["0", "1"]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("tools", [ALL, (WEATHER, NOW)], ids=["all", "two"])
def test_whatever_a_constrained_model_writes_its_calls_are_well_formed(
    name: str, required: bool, tools: Any, llama: Judge
) -> None:
    form = FORMS[name]
    grammar = form.grammar(tools, required=required)
    schemas = {tool.tool_name for tool in tools}
    finished = 0
    for seed in range(20):
        answer, complete = _written_at_random(llama, grammar, random.Random(seed))
        told = outcome(form, tools, answer)
        failed = [part for part in told if part[0] == "failed"]
        finished += complete
        assert failed == [] if complete else len(failed) <= 1, answer
        calls = [part for part in told if isinstance(part, tuple) and part[0] != "failed"]
        assert {call[0] for call in calls} <= schemas
        assert (calls or not complete) if required else True, answer
    assert finished > 5


def _written_at_random(judge: Judge, grammar: str, choice: random.Random) -> tuple[str, bool]:
    """What a model writes that likes to begin calls and to end things, and whether it came to an end."""
    matcher = judge.matcher(grammar)
    mask = allocate_token_bitmask(1, judge.vocabulary.vocab_size)
    beginnings = [
        '{"name"',
        '\n{"type": "function"',
        "<function=",
        "[",
        "\n[now(",
        "<tool_call>",
        "<|python_tag|>",
        "x\n",
        ';{"name"',
        ", [n",
    ]
    answer: list[int] = []
    opening = judge.tokenizer.encode(choice.choice(beginnings)).ids
    opening = opening[: matcher.validate_tokens(opening)]
    matcher.consume_tokens(opening)
    answer += opening
    liked = {i for c in '"}])\n' for i in judge.tokenizer.encode(c).ids}
    while len(answer) < 400 and not matcher.is_stopped():
        fill_next_token_bitmask(matcher, mask, 0)
        allowed = [i for i in range(judge.vocabulary.vocab_size) if mask[0, i // 32] >> (i % 32) & 1]
        ends = [i for i in allowed if i in judge.ends]
        weights = [1.0 if i in liked else 0.02 for i in allowed]
        if ends and choice.random() < 0.2:
            return judge.tokenizer.decode(answer, skip_special_tokens=False), True
        token = choice.choices(allowed, weights)[0]
        if token in judge.ends:
            return judge.tokenizer.decode(answer, skip_special_tokens=False), True
        matcher.consume_token(token)
        answer.append(token)
    return judge.tokenizer.decode(answer, skip_special_tokens=False), matcher.is_stopped()
