"""Vectors from hashed words."""

from __future__ import annotations

import numpy as np
import pytest

from backends.context import CallContext
from backends.errors import UnknownReference
from backends.inference import EmbedRequest, ModelLimits, TokenizeRequest
from backends.memory.embedder import MemoryEmbedder


def test_vectors_have_unit_length_even_without_words(context: CallContext) -> None:
    vectors = MemoryEmbedder().embed(context, EmbedRequest("m", ("a cat", "", "\ud800"))).vectors()
    assert vectors.shape == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_texts_with_common_words_are_near_each_other(context: CallContext) -> None:
    texts = ("the cat sat here", "here sat The cat", "the cat ran away", "stock prices fell")
    vectors = MemoryEmbedder().embed(context, EmbedRequest("m", texts)).vectors()
    same, near, far = (float(vectors[0] @ vectors[i]) for i in (1, 2, 3))
    assert same > 0.999 > near > 0.3 > far


def test_the_same_text_has_the_same_vector_in_every_process(context: CallContext) -> None:
    vector = MemoryEmbedder(dimension=4).embed(context, EmbedRequest("m", ("cat",))).vectors()[0]
    assert vector.tolist() == pytest.approx(EXPECTED, abs=1e-6)


EXPECTED = [-0.35849612951278687, 0.7494444251060486, 0.49128228425979614, 0.26163965463638306]


def test_no_texts_give_no_vectors(context: CallContext) -> None:
    result = MemoryEmbedder(dimension=5).embed(context, EmbedRequest("m", ()))
    assert result.vectors().shape == (0, 5)
    assert result.tokens == 0


def test_an_unknown_model_is_named(context: CallContext) -> None:
    embedder = MemoryEmbedder({"m"}, dimension=7)
    assert embedder.limits("m") == ModelLimits(256, 7)
    for call in (lambda: embedder.limits("x"), lambda: embedder.embed(context, EmbedRequest("x", ()))):
        with pytest.raises(UnknownReference, match="model x not found; known: m"):
            call()


def test_tokens_are_words(context: CallContext) -> None:
    result = MemoryEmbedder({"m"}).tokenize(context, TokenizeRequest("m", ("a  cat\n", "")))
    assert [spans.tolist() for spans in result.spans()] == [[[0, 1], [3, 6]], []]
    assert (result.counts(), result.room) == ([2, 0], 256)
    with pytest.raises(UnknownReference, match="x not found"):
        MemoryEmbedder({"m"}).tokenize(context, TokenizeRequest("x", ()))
