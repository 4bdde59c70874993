"""Texts cut into windows of tokens."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.rag.chunking import PIECE, chunks_of


def words(text: str) -> NDArray[np.int32]:
    return np.array([match.span() for match in re.finditer(r"\S+", text)], np.int32).reshape(-1, 2)


def pairs(text: str) -> NDArray[np.int32]:
    """Tokens of two letters, as of a tokenizer that cuts words."""
    return np.array([match.span() for match in re.finditer(r"\w{1,2}|[^\w\s]", text)], np.int32).reshape(-1, 2)


def numbered(count: int) -> str:
    return " ".join(str(number) for number in range(count))


def test_windows_overlap_by_a_quarter_and_the_last_one_has_something_new() -> None:
    found = [[int(word) for word in chunk.text.split()] for chunk in chunks_of(numbered(14), 8, words)]
    assert found == [list(range(8)), list(range(6, 14))]
    found = [[int(word) for word in chunk.text.split()] for chunk in chunks_of(numbered(15), 8, words)]
    assert found == [list(range(8)), list(range(6, 14)), [12, 13, 14]]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 300])
@pytest.mark.parametrize("tokenize", [words, pairs])
def test_every_token_is_in_a_window_of_at_most_size_and_says_where_it_is(size: int, tokenize: object) -> None:
    cut = words if tokenize is words else pairs
    text = "  " + " ".join(f"word{number}, and more" for number in range(200)) + "\n\n"
    found = list(chunks_of(text, size, cut))
    assert all(chunk.text == text[chunk.start : chunk.end] for chunk in found)
    assert all(len(cut(chunk.text)) == chunk.tokens <= size for chunk in found)
    covered = np.zeros(len(text), bool)
    for chunk in found:
        covered[chunk.start : chunk.end] = True
    assert all(covered[begin:end].all() for begin, end in cut(text))
    assert all(earlier.end < later.end for earlier, later in pairwise(found))


def test_a_short_text_is_one_chunk_and_a_text_without_tokens_none() -> None:
    (chunk,) = chunks_of(" one two ", 2, words)
    assert (chunk.text, chunk.start, chunk.end, chunk.tokens) == ("one two", 1, 8, 2)
    assert list(chunks_of(" \n ", 2, words)) == []


def test_windows_end_between_words_where_there_are_any() -> None:
    text = "alphabet soup " * 40
    whole = {"alphabet", "soup"}
    assert all(set(chunk.text.split()) <= whole for chunk in chunks_of(text, 48, pairs))


def test_a_character_of_several_tokens_is_never_parted() -> None:
    text = "\U0001f600" * 50

    def bytes_of(part: str) -> NDArray[np.int32]:
        return np.array([(i, i + 1) for i in range(len(part)) for _ in range(4)], np.int32).reshape(-1, 2)

    found = list(chunks_of(text, 34, bytes_of))
    assert all(chunk.tokens % 4 == 0 and chunk.tokens <= 34 for chunk in found)
    assert {character for chunk in found for character in chunk.text} == {"\U0001f600"}


def test_a_text_is_tokenized_in_pieces() -> None:
    asked: list[int] = []

    def watched(part: str) -> NDArray[np.int32]:
        asked.append(len(part))
        return words(part)

    text = numbered(60_000)
    found = list(chunks_of(text, 400, watched))
    assert max(asked) <= PIECE
    assert sum(asked) == len(text)
    assert found[-1].text.endswith("59999")
