from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backends.errors import BadRequest
from backends.onnx.engine import Language
from backends.training.examples import Example, Reader, packed

QUESTION = [{"role": "user", "content": "Who?"}]


def reader(language: Language, max_tokens: int = 256, *, on_input: bool = False) -> Reader:
    return Reader(language, "m", max_tokens, on_input=on_input)


def texts(language: Language, example: Example) -> tuple[str, str]:
    """The whole text, and what of it is learnt."""
    learnt = [token for token, answer in zip(example.tokens, example.answers, strict=True) if answer]
    decode = language.tokenizer.decode
    return decode(example.tokens, skip_special=False), decode(learnt, skip_special=False)


def test_an_instruction_is_written_as_the_engine_reads_it_and_its_answer_is_learnt(language: Language) -> None:
    row = {"chat_completion_input": QUESTION, "expected_answer": "Me."}
    (example,) = reader(language).examples([row], "instruct")
    whole, learnt = texts(language, example)
    assert whole.endswith("<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nMe.<|im_end|>")
    assert learnt == "Me.<|im_end|>"


def test_messages_may_be_literals_in_a_text(language: Language) -> None:
    rows = [
        {"chat_completion_input": "[{'role': 'user', 'content': 'Who?'}]", "expected_answer": "Me."},
        {"chat_completion_input": '[{"role": "user", "content": "Who?"}]', "expected_answer": "Me."},
    ]
    first, second = reader(language).examples(rows, "instruct")
    assert first == second


def test_prompts_are_learnt_too_where_that_is_asked(language: Language) -> None:
    row = {"chat_completion_input": QUESTION, "expected_answer": "Me."}
    (example,) = reader(language, on_input=True).examples([row], "instruct")
    assert all(example.answers)


def test_each_answer_of_a_dialog_is_an_example_with_what_was_said_before(language: Language) -> None:
    answer = {"role": "assistant", "content": "Me.", "stop_reason": "end_of_turn", "tool_calls": []}
    again = {**answer, "content": "Still me."}
    dialog = [*QUESTION, answer, {"role": "user", "content": "And now?"}, again]
    first, second = reader(language).examples([{"dialog": dialog}], "dialog")
    assert texts(language, first)[1] == "Me.<|im_end|>"
    whole, learnt = texts(language, second)
    assert "Me.<|im_end|>" in whole
    assert learnt == "Still me.<|im_end|>"


def test_a_special_token_in_a_row_is_plain_text(language: Language) -> None:
    row = {"chat_completion_input": QUESTION, "expected_answer": "a<|im_end|>b"}
    (example,) = reader(language).examples([row], "instruct")
    ends = [token for token, answer in zip(example.tokens, example.answers, strict=True) if answer and token in (0, 2)]
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("row", "form", "fault"),
    [
        ({"chat_completion_input": QUESTION}, "instruct", "`expected_answer` must hold a text"),
        ({"chat_completion_input": "__import__('os')", "expected_answer": "a"}, "instruct", "neither JSON"),
        ({"chat_completion_input": [{"role": "x"}], "expected_answer": "a"}, "instruct", "not a list of messages"),
        ({"dialog": QUESTION}, "dialog", "needs an answer of the assistant"),
        ({"chat_completion_input": QUESTION, "expected_answer": "word " * 300}, "instruct", "at most 256"),
    ],
)
def test_a_row_that_cannot_be_learnt_is_named(language: Language, row: dict[str, Any], form: Any, fault: str) -> None:
    good = {"chat_completion_input": QUESTION, "expected_answer": "Me.", "dialog": [
        *QUESTION, {"role": "assistant", "content": "Me.", "stop_reason": "end_of_turn", "tool_calls": []}
    ]}  # fmt: skip
    with pytest.raises(BadRequest, match=fault) as refused:
        list(reader(language).examples([good, row], form))
    assert str(refused.value.where).startswith("row 1")


def test_a_pair_has_one_prompt_and_two_answers(language: Language) -> None:
    rows = [
        {"prompt": "Who?", "chosen": "Me.", "rejected": "You."},
        {"prompt": QUESTION, "chosen": "a", "rejected": "b"},
    ]
    first, second = reader(language).pairs(rows)
    assert texts(language, first.chosen)[1] == "Me.<|im_end|>"
    assert texts(language, first.rejected)[1] == "You.<|im_end|>"
    prompt = [token for token, answer in zip(second.chosen.tokens, second.chosen.answers, strict=True) if not answer]
    assert tuple(prompt) == second.rejected.tokens[: len(prompt)]


def test_packed_examples_lie_end_to_end_within_the_limit() -> None:
    examples = [Example((i, i, i), (False, True, True)) for i in range(5)]
    together = list(packed(examples, 7))
    assert [example.tokens for example in together] == [(0, 0, 0, 1, 1, 1), (2, 2, 2, 3, 3, 3), (4, 4, 4)]
    assert together[0].answers == (False, True, True, False, True, True)


def test_a_model_without_a_chat_template_is_refused(language: Language) -> None:
    with pytest.raises(BadRequest, match="no chat template"):
        reader(replace(language, read_chat=None))
