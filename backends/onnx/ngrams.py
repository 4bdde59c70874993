"""Counts of n-grams, as scikit-learn's TfidfVectorizer makes them with `analyzer="word"` and `"char_wb"`.

Word n-grams run over lower-cased tokens of two or more word characters; character n-grams over each word between two
spaces, never across words. ONNX has operators for the like (StringNormalizer, Tokenizer, TfIdfVectorizer), but they
lower-case by the C library, tokenize by another regular expression engine and know no n-grams that end at words, so
their counts differ as soon as a text is not plain English. Hence only the arithmetic on the counts is a graph.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from backends.errors import CorruptModel
from backends.onnx.config import NGRAMS_FILE

_TOKEN = re.compile(r"\w\w+")  # linear: nothing to go back to
_NONE = np.empty(0, np.int32)


class Vocabulary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ngrams.json`. words: known words and pairs of words, in the order of the graph's columns; pieces: known pieces
    of words, of `shortest` to `longest` characters."""

    words: tuple[str, ...]
    pieces: tuple[str, ...]
    shortest: int
    longest: int


@dataclass(frozen=True, slots=True)
class Word:
    """What stands between two white spaces. tokens: lower case. pieces: column of each known piece, int32, repeats
    included."""

    tokens: tuple[str, ...]
    pieces: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Counts:
    """Columns that occur, each once, int64, and how often, float32."""

    columns: NDArray[np.int64]
    counts: NDArray[np.float32]


class NgramCounter:
    """Counts what a vocabulary knows.

    Raises (constructor):
        CorruptModel: `ngrams.json` of the directory is missing or no vocabulary.
    """

    def __init__(self, directory: Path) -> None:
        try:
            found = msgspec.json.decode((directory / NGRAMS_FILE).read_bytes(), type=Vocabulary)
        except OSError as error:
            raise CorruptModel(NGRAMS_FILE, f"cannot be read: {error.strerror}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptModel(NGRAMS_FILE, str(error)) from error
        self._words = {term: column for column, term in enumerate(found.words)}
        self._pieces = {term: column for column, term in enumerate(found.pieces)}
        self._sizes = range(found.shortest, found.longest + 1)

    def split(self, text: str) -> list[Word]:
        """The words of a text; equal ones are looked up once."""
        seen: dict[str, Word] = {}
        words = []
        for written in text.lower().split():
            word = seen.get(written)
            if word is None:
                word = seen[written] = Word(tuple(_TOKEN.findall(written)), self._pieces_of(written))
            words.append(word)
        return words

    def count(self, words: Sequence[Word]) -> tuple[Counts, Counts]:
        """What occurs in a run of words: word n-grams, and pieces."""
        tokens = [token for word in words for token in word.tokens]
        grams = [*tokens, *(f"{first} {second}" for first, second in pairwise(tokens))]
        known = [column for gram in grams if (column := self._words.get(gram)) is not None]
        pieces = np.concatenate([word.pieces for word in words]) if words else _NONE
        return _counts(np.array(known, np.int32)), _counts(pieces)

    def _pieces_of(self, written: str) -> NDArray[np.int32]:
        padded = f" {written} "
        columns = []
        for size in self._sizes:
            last = max(0, len(padded) - size)
            for start in range(last + 1):
                column = self._pieces.get(padded[start : start + size])
                if column is not None:
                    columns.append(column)
            if last == 0:  # a short word is one piece, counted once
                break
        return np.array(columns, np.int32) if columns else _NONE


def _counts(columns: NDArray[np.int32]) -> Counts:
    found, counts = np.unique(columns, return_counts=True)
    return Counts(found.astype(np.int64), counts.astype(np.float32))
