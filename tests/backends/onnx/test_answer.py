"""Text of an answer: whole characters, no stop string."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.inference import TextDelta, ToolCallDelta
from backends.onnx.answer import Answer


class Pieces:
    """A detokenizer whose token i has the text `texts[i]`."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(texts)

    def __call__(self, token: int) -> str:
        return self.texts[token]


def run(texts: list[str], stop: tuple[str, ...]) -> tuple[list[str], bool]:
    """Texts of the deltas, and whether a stop string ended the answer."""
    answer = Answer(Pieces(texts), stop)
    deltas: list[TextDelta | ToolCallDelta] = []
    for token in range(len(texts)):
        deltas += answer.push(token)
        if answer.stopped:
            break
    deltas += answer.flush()
    return [delta.text for delta in deltas], answer.stopped


@pytest.mark.parametrize(
    ("texts", "stop", "expected", "stopped"),
    [
        (["ab", "cd"], (), ["ab", "cd"], False),
        (["ab", "cd"], ("",), ["ab", "cd"], False),
        (["a", "b", "END", "c"], ("END",), ["a", "b"], True),
        (["a", "E", "N", "D"], ("END",), ["a"], True),
        (["a", "E", "N", "x"], ("END",), ["a", "ENx"], False),
        (["a", "E", "N"], ("END",), ["a", "EN"], False),
        (["aaEN", "Db"], ("END",), ["aa"], True),
        (["END"], ("END",), [], True),
        (["EEN", "D"], ("END",), ["E"], True),
        (["xEND y STOP"], ("STOP", "END"), ["x"], True),
        (["", "a", "", "b"], (), ["a", "b"], False),
        (["ababa", "c"], ("abac",), ["ab"], True),
    ],
)
def test_deltas(texts: list[str], stop: tuple[str, ...], expected: list[str], stopped: bool) -> None:
    assert run(texts, stop) == (expected, stopped)


@given(st.lists(st.text("ab\n", max_size=4), max_size=12), st.lists(st.text("ab\n", max_size=4), max_size=3))
def test_the_answer_is_the_text_before_the_first_stop_string_however_it_is_cut(
    texts: list[str], stop: list[str]
) -> None:
    deltas, stopped = run(texts, tuple(stop))
    # What had come when the first stop string was complete: a longer one that begins earlier may still be open then.
    arrived = ""
    expected, expect_stop = "".join(texts), False
    for text in texts:
        arrived += text
        found = [arrived.find(s) for s in stop if s and s in arrived]
        if found:
            expected, expect_stop = arrived[: min(found)], True
            break
    assert ("".join(deltas), stopped) == (expected, expect_stop)


def test_log_probabilities_come_with_the_text_of_their_token() -> None:
    answer = Answer(Pieces(["a", "E", "Nx", "E", "ND"]), ("END",))
    deltas = [answer.push(token, {str(token): -1.0}) for token in range(5)]
    assert [[(d.text, [*map(list, d.logprobs)]) for d in told] for told in deltas] == [
        [("a", [["0"]])],
        [],
        [("ENx", [["1"], ["2"]])],
        [],
        [],
    ]
    assert answer.stopped


def test_log_probabilities_of_an_incomplete_character_are_not_lost() -> None:
    answer = Answer(Pieces(["", "é", ""]))
    deltas = [answer.push(token, {str(token): -1.0}) for token in range(3)]
    assert sum(len(d.logprobs) for told in deltas for d in told) == 3


class Calls:
    """Takes everything between brackets for a call, and tells of it when it is over."""

    def __init__(self) -> None:
        self.held = ""

    def push(self, text: str) -> list[TextDelta | ToolCallDelta]:
        told: list[TextDelta | ToolCallDelta] = []
        for character in text:
            if self.held or character == "[":
                self.held += character
            else:
                told.append(TextDelta(character))
            if character == "]":
                told.append(ToolCallDelta("failed", self.held))
                self.held = ""
        return told

    def finish(self) -> list[TextDelta | ToolCallDelta]:
        return [ToolCallDelta("failed", self.held)] if self.held else []


def test_calls_are_told_apart_from_text_and_no_log_probability_is_lost() -> None:
    answer = Answer(Pieces(["a", "[b", "c", "]", "d", "[e"]), (), Calls())
    deltas = [delta for token in range(6) for delta in answer.push(token, {str(token): -1.0})]
    deltas += answer.flush()
    assert [(delta.kind, delta.text, [*map(list, delta.logprobs)]) for delta in deltas] == [
        ("text", "a", [["0"]]),
        ("tool_call", "[bc]", [["1"], ["2"], ["3"]]),
        ("text", "d", [["4"]]),
        ("tool_call", "[e", [["5"]]),
    ]


def test_what_a_parser_never_tells_of_still_has_its_log_probabilities() -> None:
    calls = Calls()
    answer = Answer(Pieces(["[a"]), (), calls)
    assert answer.push(0, {"0": -1.0}) == []
    calls.held = ""
    assert answer.flush() == [TextDelta("", ({"0": -1.0},))]
