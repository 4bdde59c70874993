"""The Embedder port in memory: vectors from hashed words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from backends.context import CallContext
from backends.errors import UnknownReference
from backends.inference import EmbedRequest, EmbedResult, ModelLimits, TokenizeRequest, TokenizeResult

MAX_WORDS = 256
_WORD = re.compile(r"\S+")


class MemoryEmbedder:
    """Adds up one random direction per word, so that texts with common words are near each other, in any process.

    models: the names it knows; None for any. dimension: size of the vectors.
    """

    def __init__(self, models: Collection[str] | None = None, dimension: int = 384) -> None:
        self._models = models
        self._dimension = dimension

    def embed(self, context: CallContext, request: EmbedRequest) -> EmbedResult:
        context.check()
        self._check(request.model)
        words = [text.lower().split()[:MAX_WORDS] for text in request.texts]
        vectors = np.zeros((len(words), self._dimension), np.float32)
        for row, text in zip(vectors, words, strict=True):
            row[:] = sum((self._direction(word) for word in text), start=self._direction(""))
            row /= np.linalg.norm(row)
        return EmbedResult.of(vectors, sum(map(len, words)))

    def tokenize(self, context: CallContext, request: TokenizeRequest) -> TokenizeResult:
        context.check()
        self._check(request.model)
        spans = [[match.span() for match in _WORD.finditer(text)] for text in request.texts]
        return TokenizeResult.of([np.array(rows, np.int32).reshape(-1, 2) for rows in spans], MAX_WORDS)

    def limits(self, model: str) -> ModelLimits:
        self._check(model)
        return ModelLimits(MAX_WORDS, self._dimension)

    def ping(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing is held."""

    def _direction(self, word: str) -> NDArray[np.float32]:
        seed = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
        direction = np.random.default_rng(int.from_bytes(seed)).standard_normal(self._dimension, np.float32)
        # "" is in every text, hardly audible: no text, however empty, is the zero vector.
        return direction if word else direction * np.float32(1e-3)

    def _check(self, model: str) -> None:
        if self._models is not None and model not in self._models:
            raise UnknownReference(f"model {model} not found; known: {', '.join(sorted(self._models))}")
