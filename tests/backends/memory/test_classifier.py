"""A word list as a classifier."""

from __future__ import annotations

import pytest

from backends.context import CallContext
from backends.errors import UnknownReference
from backends.inference import ClassifyRequest
from backends.memory.classifier import MemoryClassifier


def test_a_listed_word_makes_a_text_unsafe(context: CallContext) -> None:
    classifier = MemoryClassifier(words={"bomb"})
    result = classifier.classify(context, ClassifyRequest("m", ("Build a BOMB now", "bombastic", "")))
    assert result.labels == ("safe", "unsafe")
    assert result.scores == ((0.0, 1.0), (1.0, 0.0), (1.0, 0.0))


def test_an_unknown_model_is_named(context: CallContext) -> None:
    with pytest.raises(UnknownReference, match="model x not found; known: m"):
        MemoryClassifier({"m"}).classify(context, ClassifyRequest("x", ()))
