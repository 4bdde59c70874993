"""The counts of n-grams on a small vocabulary; that they are the authors' is tested with the converter."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from backends.errors import CorruptModel
from backends.onnx.config import NGRAMS_FILE
from backends.onnx.ngrams import Counts, NgramCounter, Vocabulary

WORDS = ("the", "cat", "the cat", "cat the")
PIECES = (" ca", "cat", "at ", " cat", "cat ", " a ")


@pytest.fixture
def counter(tmp_path: Path) -> NgramCounter:
    (tmp_path / NGRAMS_FILE).write_bytes(msgspec.json.encode(Vocabulary(WORDS, PIECES, 3, 4)))
    return NgramCounter(tmp_path)


def told(block: Counts, terms: tuple[str, ...]) -> dict[str, int]:
    return {terms[column]: int(count) for column, count in zip(block.columns, block.counts, strict=True)}


@pytest.mark.parametrize(
    ("text", "words", "pieces"),
    [
        ("The cat", {"the": 1, "cat": 1, "the cat": 1}, {" ca": 1, "cat": 1, "at ": 1, " cat": 1, "cat ": 1}),
        ("the CAT, the", {"the": 2, "cat": 1, "the cat": 1, "cat the": 1}, {" ca": 1, "cat": 1, " cat": 1}),
        ("a", {}, {" a ": 1}),
        ("the-cat", {"the": 1, "cat": 1, "the cat": 1}, {"cat": 1, "at ": 1, "cat ": 1}),
        ("concatenate", {}, {"cat": 1}),
        (" \n", {}, {}),
    ],
)
def test_known_words_pairs_and_pieces_are_counted(
    counter: NgramCounter, text: str, words: dict[str, int], pieces: dict[str, int]
) -> None:
    first, second = counter.count(counter.split(text))
    assert told(first, WORDS) == words
    assert told(second, PIECES) == pieces


def test_a_run_of_words_is_counted_by_itself(counter: NgramCounter) -> None:
    first, _ = counter.count(counter.split("cat the the cat")[1:3])
    assert told(first, WORDS) == {"the": 2}


@pytest.mark.parametrize("data", [b"", b"[]", b'{"words": 1}', b"\xff"])
def test_a_file_that_is_no_vocabulary_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / NGRAMS_FILE).write_bytes(data)
    with pytest.raises(CorruptModel, match=NGRAMS_FILE):
        NgramCounter(tmp_path)


def test_a_missing_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptModel, match=NGRAMS_FILE):
        NgramCounter(tmp_path)
