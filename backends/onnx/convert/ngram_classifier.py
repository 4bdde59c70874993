"""Weights of a linear classifier over TF-IDF n-grams, in the JSON form of `securevector-guardian-model`, as a graph.

The file is gzip over one JSON object: `format` "svguardian-pure-1", `classes`, `benign`, `window_min_score`, the blocks
`word` and `char` (`vocab` term -> column, `idf` per column, `ngram_range`, `sublinear_tf`), `n_word_features`, `coef`
[classes][word columns, then char columns] and `intercept` [classes].
"""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert.graph import GraphBuilder

FORMAT = "svguardian-pure-1"
MAX_JSON_BYTES = 256_000_000
"""The known file unpacks to 9 MB."""
WINDOW_WORDS = 24
"""Words of a long text that the default guard model looks at at once, as its authors do; half of them overlap."""

Float32 = NDArray[np.float32]


class _Block(msgspec.Struct, frozen=True):
    vocab: dict[str, int]
    idf: list[float]
    ngram_range: tuple[int, int]
    sublinear_tf: bool


class _Weights(msgspec.Struct, frozen=True):
    format: str
    classes: tuple[str, ...]
    benign: str
    n_word_features: int
    word: _Block
    char: _Block
    coef: list[list[float]]
    intercept: list[float]
    window_min_score: float


class NgramClassifierSource:
    """The file, opened and checked.

    labels, benign: as in the model's configuration. words, pieces: the vocabularies in the order of their columns.
    shortest, longest: characters of a piece. window_score: see `NgramClassifierConfig`.

    Raises (constructor):
        Unsupported: another format or a variant of it. CorruptModel: the parts contradict each other.
    """

    def __init__(self, file: Path) -> None:
        weights = _read(file)
        if weights.format != FORMAT:
            raise Unsupported(f"n-gram weights of format {weights.format[:80]!r}; {FORMAT!r} can be converted")
        word, char = weights.word, weights.char
        if word.ngram_range != (1, 2) or not word.sublinear_tf or not char.sublinear_tf:
            raise Unsupported("n-gram weights other than of words and pairs of words, with sublinear counts")
        self._name = file.name
        self.labels, self.benign = weights.classes, weights.benign
        self.window_score = weights.window_min_score
        self.shortest, self.longest = char.ngram_range
        if not 1 <= self.shortest <= self.longest <= 16 or not 0 <= self.window_score <= 1:
            raise self._wrong("sizes of pieces or the score of windows are out of range")
        if self.benign not in self.labels or len(set(self.labels)) != len(self.labels):
            raise self._wrong(f"the classes {self.labels} are not distinct or lack {self.benign!r}")
        self.words = self._terms(word)
        self.pieces = self._terms(char)
        self.word_idf, self.piece_idf = np.array(word.idf, np.float32), np.array(char.idf, np.float32)
        columns = len(self.words) + len(self.pieces)
        if weights.n_word_features != len(self.words) or len(weights.intercept) != len(self.labels):
            raise self._wrong("the vocabularies, classes and intercepts do not fit each other")
        if [len(row) for row in weights.coef] != [columns] * len(self.labels):
            raise self._wrong(f"the coefficients are not {len(self.labels)} rows of {columns}")
        coefficients = np.array(weights.coef, np.float32).T
        self.word_coefficients = coefficients[: len(self.words)]
        self.piece_coefficients = coefficients[len(self.words) :]
        self.intercept = np.array(weights.intercept, np.float32)
        for array in (self.word_idf, self.piece_idf, coefficients, self.intercept):
            if not np.isfinite(array).all():
                raise self._wrong("a weight is not finite")

    def _terms(self, block: _Block) -> tuple[str, ...]:
        terms = sorted(block.vocab, key=block.vocab.__getitem__)
        if [block.vocab[term] for term in terms] != list(range(len(block.idf))) or not terms:
            raise self._wrong("a vocabulary does not number its terms from 0")
        return tuple(terms)

    def _wrong(self, reason: str) -> CorruptModel:
        return CorruptModel(self._name, reason)


def build_ngram_graph(graph: GraphBuilder, source: NgramClassifierSource) -> None:
    """Add everything from the counts to `probabilities`; described at `convert_ngram_classifier`."""
    graph.output("probabilities", np.float32, ["texts", len(source.labels)])
    zero = graph.constant("zero", np.array(0, np.float32))
    one = graph.constant("one", np.array(1, np.float32))
    scores = graph.constant("intercept", source.intercept)
    blocks = (
        ("word", source.word_idf, source.word_coefficients),
        ("piece", source.piece_idf, source.piece_coefficients),
    )
    for name, idf, coefficients in blocks:
        columns = graph.input(f"{name}_columns", np.int64, ["texts", f"{name}s"])
        counts = graph.input(f"{name}_counts", np.float32, ["texts", f"{name}s"])
        damped = graph.node("Add", [one, graph.node("Log", [graph.node("Max", [counts, one])])])
        frequency = graph.node("Where", [graph.node("Greater", [counts, zero]), damped, zero])
        weighted = graph.node(
            "Mul", [frequency, graph.node("Gather", [graph.constant(f"{name}_idf", idf), columns], axis=0)]
        )
        axis = graph.constant(f"{name}_axis", np.array([1], np.int64))
        length = graph.node("ReduceL2", [weighted, axis], keepdims=1)
        tiny = graph.constant(f"{name}_tiny", np.array(1e-12, np.float32))  # a text without any n-gram has length 0
        unit = graph.node("Div", [weighted, graph.node("Max", [length, tiny])])
        rows = graph.node("Gather", [graph.constant(f"{name}_coefficients", coefficients), columns], axis=0)
        product = graph.node("MatMul", [graph.node("Unsqueeze", [unit, axis]), rows])
        scores = graph.node("Add", [scores, graph.node("Squeeze", [product, axis])])
    graph.node("Softmax", [scores], output="probabilities", axis=-1)


def _read(file: Path) -> _Weights:
    try:
        unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        text = unzip.decompress(file.read_bytes(), MAX_JSON_BYTES)
        if not unzip.eof:
            raise CorruptModel(file.name, f"is cut off or unpacks to more than {MAX_JSON_BYTES} bytes")
        return msgspec.json.decode(text, type=_Weights)
    except OSError as error:
        raise CorruptModel(file.name, f"cannot be read: {error.strerror}") from error
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptModel(file.name, f"holds no n-gram weights: {error}") from error
