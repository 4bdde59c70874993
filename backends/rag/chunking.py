"""Texts cut into overlapping windows of tokens, by the tokenizer of the model that will embed them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PIECE = 65_536
"""Characters that are tokenized at once, so that a long text needs little memory and a caller who left is noticed."""

Tokenize = Callable[[str], NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A window of a text. start, end: its characters, `text == document[start:end]`; tokens: how many it has."""

    text: str
    start: int
    end: int
    tokens: int


def chunks_of(text: str, size: int, tokenize: Tokenize) -> Iterator[TextChunk]:
    """Windows of at most `size` tokens, each beginning `size // 4` tokens before the end of the one before.

    A window ends before a word rather than within one, and begins at one, where that moves it by at most an eighth of
    `size`; it never parts a character. Every token is in a window, and every window has one that no earlier has. So a
    text of at most `size` tokens is one chunk, and a text without any is none.

    tokenize: first character of each token of a text and the one after its last, int32 [tokens, 2].
    """
    overlap, slack = size // 4, size // 8
    spans = np.empty((0, 2), np.int32)
    begin = 0
    for start, end in _pieces(text):
        spans = np.concatenate([spans, tokenize(text[start:end]) + np.int32(start)])
        while len(spans) > size:
            cut = _word_start(text, spans, size, size - slack, -1)
            yield _chunk(text, begin, int(spans[cut, 0]), cut)
            again = _word_start(text, spans, cut - overlap, min(cut - overlap + slack, cut), 1)
            spans = spans[again:]
            begin = int(spans[0, 0])
    if len(spans):
        yield _chunk(text, begin, len(text), len(spans))


def _chunk(text: str, start: int, end: int, tokens: int) -> TextChunk:
    found = text[start:end]
    start += len(found) - len(found.lstrip())
    return TextChunk(found.strip(), start, start + len(found.strip()), tokens)


def _word_start(text: str, spans: NDArray[np.int32], wanted: int, last: int, step: int) -> int:
    """The token from `wanted` to `last` at which a word begins; else one at which a character does; else `wanted`."""
    tokens = range(wanted, last + step, step)
    for token in tokens:
        begin = int(spans[token, 0])
        if begin > spans[token - 1, 1] or text[begin].isspace():
            return token
    for token in tokens:
        if spans[token, 0] >= spans[token - 1, 1]:
            return token
    return wanted


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of parts of the text, cut after blanks where there are any."""
    start = 0
    while start < len(text):
        end = min(start + PIECE, len(text))
        if end < len(text):
            blank = max(text.rfind(" ", start + PIECE // 2, end), text.rfind("\n", start + PIECE // 2, end))
            end = end if blank < 0 else blank + 1
        yield start, end
        start = end
