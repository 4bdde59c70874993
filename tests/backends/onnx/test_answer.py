"""Text of an answer: whole characters, no stop string."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.inference import TextDelta
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
    deltas: list[TextDelta | None] = []
    for token in range(len(texts)):
        deltas.append(answer.push(token))
        if answer.stopped:
            break
    else:
        deltas.append(answer.flush())
    return [delta.text for delta in deltas if delta is not None], answer.stopped


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
    assert [None if d is None else (d.text, [*map(list, d.logprobs)]) for d in deltas] == [
        ("a", [["0"]]),
        None,
        ("ENx", [["1"], ["2"]]),
        None,
        None,
    ]
    assert answer.stopped


def test_log_probabilities_of_an_incomplete_character_are_not_lost() -> None:
    answer = Answer(Pieces(["", "é", ""]))
    deltas = [answer.push(token, {str(token): -1.0}) for token in range(3)]
    assert sum(len(d.logprobs) for d in deltas if d is not None) == 3
