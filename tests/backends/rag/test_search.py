"""Two rankings as one, and both searches at the same time."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from backends.context import CallContext
from backends.errors import Unavailable
from backends.inference import EmbedRequest, EmbedResult
from backends.memory.embedder import MemoryEmbedder
from backends.memory.vectors import MemoryVectorIndex
from backends.ports import ScoredChunk, VectorChunk
from backends.rag.search import Found, fused, search
from backends.resources.vector_dbs import OpenVectorDb

DB = OpenVectorDb("db", MemoryVectorIndex(), "t", MemoryEmbedder(), "m", 384)


def ranking(*hits: tuple[str, float]) -> list[Found]:
    return [Found(DB, VectorChunk(name, {}, name), score) for name, score in hits]


def scores(found: Sequence[Found]) -> list[tuple[str, float]]:
    return [(str(hit.chunk.content), hit.score) for hit in found]


def test_what_both_find_counts_with_the_mean_of_its_shares_of_the_best() -> None:
    by_vector = ranking(("a", 1.0), ("b", 0.6), ("c", -1.0))
    by_words = ranking(("b", 8.0), ("d", 2.0))
    assert scores(fused(by_vector, by_words)) == [("b", 0.9), ("a", 0.5), ("d", 0.125), ("c", 0.0)]


def test_how_much_better_a_chunk_is_counts_and_not_its_rank_alone() -> None:
    by_vector = ranking(("a", 0.51), ("b", 0.5), ("c", 0.49))
    assert [name for name, _ in scores(fused(by_vector, ranking(("b", 9.0), ("a", 1.0))))] == ["b", "a", "c"]
    assert [name for name, _ in scores(fused(by_vector, ranking(("c", 9.0), ("a", 1.0))))] == ["c", "a", "b"]


def test_a_ranking_alone_keeps_its_order_and_equal_chunks_are_one() -> None:
    by_vector = ranking(("a", 0.9), ("a", 0.9), ("b", 0.9), ("c", 0.1))
    assert [name for name, _ in scores(fused(by_vector, []))] == ["a", "b", "c"]
    assert [name for name, _ in scores(fused([], ranking(("x", 0.0), ("y", 0.0))))] == ["x", "y"]
    assert fused([], []) == []
    assert [score for _, score in scores(fused(ranking(("a", -1.0)), []))] == [0.0]


class Meeting(MemoryVectorIndex):
    """An index whose searches by words wait for the embedding of the question, and the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.both = threading.Barrier(2, timeout=20)

    def match(self, context: CallContext, table: str, text: str, *, max_chunks: int) -> list[ScoredChunk]:
        self.both.wait()
        return super().match(context, table, text, max_chunks=max_chunks)


class MeetingEmbedder(MemoryEmbedder):
    def __init__(self, both: threading.Barrier) -> None:
        super().__init__()
        self._both = both

    def embed(self, context: CallContext, request: EmbedRequest) -> EmbedResult:
        self._both.wait()
        return super().embed(context, request)


def test_words_are_looked_up_while_the_question_is_embedded(context: CallContext) -> None:
    index = Meeting()
    index.create(context, "t", 384)
    vectors = MemoryEmbedder().embed(context, EmbedRequest("m", ("one river", "two lakes"))).vectors()
    index.insert(context, "t", [VectorChunk("one river", {}, "r"), VectorChunk("two lakes", {}, "l")], vectors)
    db = OpenVectorDb("db", index, "t", MeetingEmbedder(index.both), "m", 384)
    assert [hit.chunk.document_id for hit in search(context, [db], "river", "hybrid", 1)] == ["r"]


class Broken(MemoryVectorIndex):
    def match(self, context: CallContext, table: str, text: str, *, max_chunks: int) -> list[ScoredChunk]:
        raise Unavailable("the words are away")


def test_what_fails_aside_fails_the_search(context: CallContext) -> None:
    index = Broken()
    index.create(context, "t", 384)
    index.insert(context, "t", [VectorChunk("a", {}, "r")], np.ones((1, 384), np.float32))
    db = OpenVectorDb("db", index, "t", MemoryEmbedder(), "m", 384)
    with pytest.raises(Unavailable, match="the words are away"):
        search(context, [db], "river", "hybrid", 1)
