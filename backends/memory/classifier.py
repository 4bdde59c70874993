"""The Classifier port in memory: a word list."""

from __future__ import annotations

from collections.abc import Collection

from backends.context import CallContext
from backends.errors import UnknownReference
from backends.inference import ClassifyRequest, ClassifyResult


class MemoryClassifier:
    """Calls a text unsafe when it holds one of the words.

    models: the names it knows; None for any. words: lower case.
    """

    labels = ("safe", "unsafe")

    def __init__(self, models: Collection[str] | None = None, words: Collection[str] = ("bomb", "poison")) -> None:
        self._models = models
        self._words = frozenset(words)

    def classify(self, context: CallContext, request: ClassifyRequest) -> ClassifyResult:
        context.check()
        if self._models is not None and request.model not in self._models:
            raise UnknownReference(f"model {request.model} not found; known: {', '.join(sorted(self._models))}")
        found = [not self._words.isdisjoint(text.lower().split()) for text in request.texts]
        return ClassifyResult(
            self.labels, tuple((0.0, 1.0) if unsafe else (1.0, 0.0) for unsafe in found), self.labels[0]
        )

    def ping(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing is held."""
