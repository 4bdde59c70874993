"""What every VectorIndex must do; run by the tests of each adapter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.context import CallContext, CancellationToken
from backends.errors import BadRequest, Cancelled, Conflict, NotFound
from backends.lance.vectors import LanceVectorIndex
from backends.memory.vectors import MemoryVectorIndex
from backends.ports import VectorChunk, VectorIndex

START = datetime(2026, 1, 1, tzinfo=UTC)
T = "vector_db_1"


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class MakeIndex(Protocol):
    def __call__(self, *, clock: Callable[[], datetime]) -> VectorIndex: ...


def units(rows: int, dimension: int = 8, seed: int = 0) -> NDArray[np.float32]:
    """Random unit vectors, float32 [rows, dimension]."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def tables_of(index: VectorIndex | None) -> list[str]:
    """Names of all tables that an index holds."""
    if isinstance(index, MemoryVectorIndex):
        return sorted(index._tables)
    assert isinstance(index, LanceVectorIndex)
    return index._database.names()


def chunk(content: Any = "text", **options: Any) -> VectorChunk:
    return VectorChunk(content=content, metadata=options.pop("metadata", {}), **options)


def contents(index: VectorIndex, context: CallContext, vector: NDArray[np.float32], count: int = 10) -> list[Any]:
    return [hit.chunk.content for hit in index.query(context, T, vector, max_chunks=count)]


class VectorIndexSuite:
    """Subclasses give a fixture `make_index`."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def index(self, make_index: MakeIndex, clock: Clock, context: CallContext) -> VectorIndex:
        index = make_index(clock=clock)
        index.create(context, T, 8)
        return index

    def test_a_chunk_is_found_by_its_own_vector_with_score_one(self, index: VectorIndex, context: CallContext) -> None:
        vectors = units(5)
        index.insert(context, T, [chunk(f"text {i}") for i in range(5)], vectors)
        for i in range(5):
            best, *others = index.query(context, T, vectors[i], max_chunks=5)
            assert (best.chunk.content, best.score) == (f"text {i}", 1.0)
            assert len(others) == 4

    def test_scores_are_cosine_similarities_best_first_between_minus_one_and_one(
        self, index: VectorIndex, context: CallContext
    ) -> None:
        vectors, query = units(20), units(1, seed=1)[0]
        vectors = np.vstack([vectors, query, -query]).astype(np.float32)
        index.insert(context, T, [chunk(i) for i in range(22)], vectors)
        hits = index.query(context, T, query, max_chunks=22)
        expected = vectors @ query
        assert [hit.chunk.content for hit in hits] == np.argsort(-expected).tolist()
        assert [hit.score for hit in hits] == pytest.approx(sorted(expected, reverse=True), abs=2e-6)
        assert hits[0].score == 1.0
        assert hits[-1].score == -1.0

    def test_vectors_of_any_length_count_by_their_direction(self, index: VectorIndex, context: CallContext) -> None:
        vectors = units(2)
        index.insert(context, T, [chunk("short"), chunk("long")], vectors * np.float32([[1e-3], [1e18]]))
        for vector, name in zip(vectors, ("short", "long"), strict=True):
            best = index.query(context, T, vector * np.float32(7), max_chunks=1)[0]
            assert (best.chunk.content, best.score) == (name, 1.0)

    def test_at_most_max_chunks_are_returned(self, index: VectorIndex, context: CallContext) -> None:
        index.insert(context, T, [chunk(i) for i in range(10)], units(10))
        for count, expected in ((1, 1), (3, 3), (10, 10), (11, 10), (10_000, 10)):
            assert len(index.query(context, T, units(1)[0], max_chunks=count)) == expected

    @pytest.mark.parametrize("count", [0, -1, 10_001, True, 2.0])
    def test_max_chunks_out_of_range_is_refused(self, index: VectorIndex, context: CallContext, count: int) -> None:
        with pytest.raises(BadRequest, match="max_chunks"):
            index.query(context, T, units(1)[0], max_chunks=count)

    def test_no_chunk_below_the_score_threshold_is_returned(self, index: VectorIndex, context: CallContext) -> None:
        axes = np.eye(8, dtype=np.float32)
        slanted = axes[0] + axes[1]
        index.insert(context, T, [chunk(i) for i in range(8)], axes)
        for threshold, expected in ((0.9, []), (0.7, [0, 1]), (0.0, list(range(8))), (-1.0, list(range(8)))):
            hits = index.query(context, T, slanted, max_chunks=8, score_threshold=threshold)
            assert sorted(hit.chunk.content for hit in hits) == expected
            assert all(hit.score >= threshold for hit in hits)

    def test_an_exact_match_passes_a_threshold_of_one(self, index: VectorIndex, context: CallContext) -> None:
        vectors = units(50)
        index.insert(context, T, [chunk(i) for i in range(50)], vectors)
        for i in range(50):
            hits = index.query(context, T, vectors[i], max_chunks=5, score_threshold=1.0)
            assert [hit.chunk.content for hit in hits] == [i]

    def test_a_threshold_that_is_no_number_is_refused(self, index: VectorIndex, context: CallContext) -> None:
        with pytest.raises(BadRequest, match="score_threshold"):
            index.query(context, T, units(1)[0], max_chunks=1, score_threshold=float("nan"))

    def test_expired_chunks_are_neither_found_nor_counted(
        self, index: VectorIndex, context: CallContext, clock: Clock
    ) -> None:
        vectors = units(4)
        expiries = [START + timedelta(seconds=1), START + timedelta(seconds=60), None, START - timedelta(seconds=1)]
        chunks = [chunk(i, expires_at=expiry) for i, expiry in enumerate(expiries)]
        index.insert(context, T, chunks, vectors)
        for passed_s, live in ((0, [0, 1, 2]), (0.999999, [0, 1, 2]), (1, [1, 2]), (60, [2]), (10**9, [2])):
            clock.now = START + timedelta(seconds=passed_s)
            assert sorted(contents(index, context, vectors[0])) == live
            assert index.count(context, T) == len(live)

    def test_expired_chunks_do_not_take_the_places_of_live_ones(
        self, index: VectorIndex, context: CallContext, clock: Clock
    ) -> None:
        near, far = np.eye(8, dtype=np.float32)[:2]
        index.insert(context, T, [chunk("old", expires_at=START)] * 50, np.tile(near, (50, 1)))
        index.insert(context, T, [chunk("live")] * 3, np.tile(far, (3, 1)))
        assert contents(index, context, near, 3) == ["live"] * 3

    def test_an_expiry_comes_back_as_the_same_instant(self, index: VectorIndex, context: CallContext) -> None:
        expiry = datetime(2027, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
        vectors = units(2)
        index.insert(context, T, [chunk("some", expires_at=expiry), chunk("none")], vectors)
        hits = [index.query(context, T, vector, max_chunks=1)[0] for vector in vectors]
        assert [hit.chunk.expires_at for hit in hits] == [expiry, None]

    def test_an_expiry_without_time_zone_is_refused(self, index: VectorIndex, context: CallContext) -> None:
        with pytest.raises(BadRequest, match="time zone"):
            index.insert(context, T, [chunk(expires_at=START.replace(tzinfo=None))], units(1))

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "plain",
            "Grüße, 世界 🌍 \u202e \x00 ' \" \\",
            {"type": "text", "text": "item"},
            {"type": "image", "image": {"data": "aGk="}},
            ["a", {"type": "text", "text": "b"}, {"type": "image", "image": {"url": {"uri": "http://x/y"}}}],
            [],
        ],
    )
    def test_content_comes_back_as_it_was(self, index: VectorIndex, context: CallContext, content: Any) -> None:
        index.insert(context, T, [chunk(content)], units(1))
        assert contents(index, context, units(1)[0]) == [content]

    def test_metadata_comes_back_exactly(self, index: VectorIndex, context: CallContext) -> None:
        metadata = {
            "int": 1,
            "big": 2**70,
            "float": 1.0,
            "tiny": 5e-324,
            "null": None,
            "yes": True,
            "nested": {"list": [1, 2.5, "three", None, [], {}], "ключ": "значение 🗝"},
            "": "empty key",
            "order": 0,
        }
        index.insert(context, T, [chunk(metadata=metadata)], units(1))
        found = index.query(context, T, units(1)[0], max_chunks=1)[0].chunk.metadata
        assert found == metadata
        assert list(found) == list(metadata)
        assert [type(value) for value in found.values()] == [type(value) for value in metadata.values()]

    def test_what_is_stored_is_not_changed_through_what_was_given_or_returned(
        self, index: VectorIndex, context: CallContext
    ) -> None:
        given = chunk(["a"], metadata={"k": ["v"]})
        index.insert(context, T, [given], units(1))
        for _ in range(2):
            found = index.query(context, T, units(1)[0], max_chunks=1)[0].chunk
            assert (found.content, found.metadata) == (["a"], {"k": ["v"]})
            given.content.append("b")
            found.metadata["k"].append("w")

    @pytest.mark.parametrize("metadata", [{"x": float("nan")}, {"x": float("inf")}, {"x": object()}])
    def test_metadata_that_is_no_json_is_refused_and_nothing_is_stored(
        self, index: VectorIndex, context: CallContext, metadata: dict[str, Any]
    ) -> None:
        with pytest.raises(BadRequest, match="JSON") as refused:
            index.insert(context, T, [chunk(), chunk(metadata=metadata)], units(2))
        assert refused.value.where == "/chunks/1/metadata"
        assert index.count(context, T) == 0

    @pytest.mark.parametrize("document_id", ["", "x' OR 1=1 --", "\\'", '"; DROP TABLE x', "../../etc", "ид-🗎", "\x00"])
    def test_any_document_id_is_only_a_value(self, index: VectorIndex, context: CallContext, document_id: str) -> None:
        vectors = units(2)
        index.insert(context, T, [chunk("a", document_id=document_id), chunk("b", document_id="other")], vectors)
        hits = index.query(context, T, vectors[0], max_chunks=1)
        assert [hit.chunk.document_id for hit in hits] == [document_id]
        assert index.count(context, T) == 2

    def test_half_a_surrogate_pair_is_refused_wherever_it_stands(
        self, index: VectorIndex, context: CallContext
    ) -> None:
        with pytest.raises(BadRequest, match="surrogate"):
            index.insert(context, T, [chunk(document_id="\ud800")], units(1))
        for bad in (chunk("\ud83d"), chunk(metadata={"k": "\udc00"}), chunk(metadata={"\udc00": 1})):
            with pytest.raises(BadRequest, match="surrogate"):
                index.insert(context, T, [bad], units(1))
        assert index.count(context, T) == 0

    @pytest.mark.parametrize(
        "name",
        ["", "x' OR 1=1", "../up", "a/b", ".", "..", ".hidden", "a\x00b", "ä", "a b", "a.b", "x" * 129, "a;--", "a\n"],
    )
    def test_a_name_that_no_table_can_have_is_refused_by_every_method(
        self, index: VectorIndex, context: CallContext, name: str
    ) -> None:
        with pytest.raises(BadRequest, match="table name"):
            index.create(context, name, 8)
        with pytest.raises(BadRequest, match="table name"):
            index.insert(context, name, [chunk()], units(1))
        with pytest.raises(BadRequest, match="table name"):
            index.query(context, name, units(1)[0], max_chunks=1)
        with pytest.raises(BadRequest, match="table name"):
            index.count(context, name)
        with pytest.raises(BadRequest, match="table name"):
            index.drop(context, name)
        assert index.count(context, T) == 0

    def test_vectors_of_another_dimension_are_refused_naming_both(
        self, index: VectorIndex, context: CallContext
    ) -> None:
        with pytest.raises(BadRequest, match=r"9 .*8"):
            index.insert(context, T, [chunk()], units(1, 9))
        with pytest.raises(BadRequest, match=r"9 .*8"):
            index.query(context, T, units(1, 9)[0], max_chunks=1)
        with pytest.raises(BadRequest, match="one"):
            index.query(context, T, units(2), max_chunks=1)
        with pytest.raises(BadRequest, match="2 vectors for 1 chunks"):
            index.insert(context, T, [chunk()], units(2))
        assert index.count(context, T) == 0

    @pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
    def test_a_vector_without_direction_is_refused(
        self, index: VectorIndex, context: CallContext, value: float
    ) -> None:
        bad = np.full((1, 8), value, np.float32)
        with pytest.raises(BadRequest, match=r"vector 2 .*direction"):
            index.insert(context, T, [chunk()] * 3, np.vstack([units(2), bad]))
        with pytest.raises(BadRequest, match="direction"):
            index.query(context, T, bad[0], max_chunks=1)
        assert index.count(context, T) == 0

    def test_an_empty_table_answers_with_nothing(self, index: VectorIndex, context: CallContext) -> None:
        index.insert(context, T, [], np.empty((0, 8), np.float32))
        assert index.query(context, T, units(1)[0], max_chunks=3) == []
        assert index.count(context, T) == 0

    def test_the_same_chunk_twice_is_two_chunks(self, index: VectorIndex, context: CallContext) -> None:
        for _ in range(2):
            index.insert(context, T, [chunk()], units(1))
        assert index.count(context, T) == 2

    def test_creating_twice_keeps_the_data_and_another_dimension_conflicts(
        self, index: VectorIndex, context: CallContext
    ) -> None:
        index.insert(context, T, [chunk()], units(1))
        index.create(context, T, 8)
        with pytest.raises(Conflict, match="8 dimensions, not 9"):
            index.create(context, T, 9)
        assert index.count(context, T) == 1

    def test_tables_of_no_dimension_are_refused(self, index: VectorIndex, context: CallContext) -> None:
        with pytest.raises(BadRequest, match="dimension"):
            index.create(context, "flat", 0)

    def test_tables_are_separate_and_a_dropped_one_is_gone(self, index: VectorIndex, context: CallContext) -> None:
        index.create(context, "other", 4)
        index.insert(context, "other", [chunk()], units(1, 4))
        assert index.count(context, "other") == 1
        assert index.count(context, T) == 0
        index.drop(context, "other")
        index.drop(context, "other")
        assert index.count(context, T) == 0
        for use in (
            lambda: index.count(context, "other"),
            lambda: index.query(context, "other", units(1, 4)[0], max_chunks=1),
            lambda: index.insert(context, "other", [chunk()], units(1, 4)),
        ):
            with pytest.raises(NotFound, match="other"):
                use()

    def test_a_table_made_again_is_empty_and_may_have_another_dimension(
        self, index: VectorIndex, context: CallContext
    ) -> None:
        index.insert(context, T, [chunk()], units(1))
        index.drop(context, T)
        index.create(context, T, 4)
        assert index.count(context, T) == 0
        index.insert(context, T, [chunk("new")], units(1, 4))
        assert contents(index, context, units(1, 4)[0]) == ["new"]

    def test_inserts_of_many_threads_are_all_kept(self, index: VectorIndex, context: CallContext) -> None:
        failures: list[BaseException] = []

        def write(worker: int) -> None:
            try:
                for i in range(5):
                    index.insert(context, T, [chunk(f"{worker}-{i}-{j}") for j in range(3)], units(3, seed=worker))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert index.count(context, T) == 8 * 5 * 3
        expected = {f"{w}-{i}-{j}" for w in range(8) for i in range(5) for j in range(3)}
        assert set(contents(index, context, units(1)[0], 1000)) == expected

    def test_queries_during_a_drop_answer_or_say_that_the_table_is_gone(
        self, index: VectorIndex, context: CallContext
    ) -> None:
        outcomes: list[object] = []
        ready = threading.Barrier(5)

        def ask() -> None:
            ready.wait(30)
            for _ in range(20):
                try:
                    outcomes.append(len(index.query(context, T, units(1)[0], max_chunks=3)))
                except NotFound:
                    outcomes.append("gone")
                except BaseException as error:
                    outcomes.append(error)

        for i in range(20):
            index.insert(context, T, [chunk(i)], units(1, seed=i))
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        ready.wait(30)
        index.drop(context, T)
        for thread in threads:
            thread.join()
        assert set(outcomes) <= {3, "gone"}
        assert len(outcomes) == 80
        with pytest.raises(NotFound):
            index.count(context, T)

    def test_a_call_whose_caller_has_gone_does_nothing(self, index: VectorIndex) -> None:
        token = CancellationToken()
        token.cancel()
        with pytest.raises(Cancelled):
            index.insert(CallContext("gone", cancellation=token), T, [chunk()], units(1))
        assert index.count(CallContext("here"), T) == 0

    def test_documents_are_replaced_by_their_literal_ids_and_the_others_stay(
        self, index: VectorIndex, context: CallContext
    ) -> None:
        hostile = ["x' OR 1=1 --", "\\'", "\\", 'a"b', "%", "_", "", "d\u00e9j\u00e0", "x"]
        index.insert(context, T, [chunk(f"old {name}", document_id=name) for name in hostile], units(len(hostile)))
        for number, name in enumerate(hostile):
            fresh = [chunk(f"new {name} {part}", document_id=name) for part in range(30)]
            index.replace(context, T, [name], fresh, units(30, seed=number))
            assert index.count(context, T) == len(hostile) + 29 * (number + 1)
        index.replace(context, T, hostile[:2], [], units(0))
        kept = {f"new {name} {part}" for name in hostile[2:] for part in range(30)}
        assert set(contents(index, context, units(1)[0], 1000)) == kept
        index.replace(context, T, ["nobody"], [], units(0))
        with pytest.raises(BadRequest, match="none of the documents"):
            index.replace(context, T, ["a"], [chunk(document_id="b")], units(1))

    def test_writers_of_one_document_leave_one_whole_version(self, index: VectorIndex, context: CallContext) -> None:
        def write(number: int) -> None:
            index.replace(context, T, ["d"], [chunk(number, document_id="d")] * 5, units(5, seed=number))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        seen = []
        while any(thread.is_alive() for thread in threads):
            seen.append(contents(index, context, units(1)[0], 100))
        for thread in threads:
            thread.join()
        for found in [*filter(None, seen), contents(index, context, units(1)[0], 100)]:
            assert len(found) == 5
            assert len(set(found)) == 1

    def test_words_are_found_best_first_whatever_they_are_made_of(
        self, index: VectorIndex, context: CallContext, clock: Clock
    ) -> None:
        texts = ["the river rises", "a river, a river", "bread and salt", "code X-99"]
        index.insert(context, T, [chunk(text) for text in texts], units(4))
        index.insert(context, T, [chunk("old river", expires_at=START)], units(1))
        hits = index.match(context, T, "River?", max_chunks=10)
        assert sorted(hit.chunk.content for hit in hits) == ["a river, a river", "the river rises"]
        assert all(hit.score > 0 for hit in hits)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert len(index.match(context, T, "river", max_chunks=1)) == 1
        assert [hit.chunk.content for hit in index.match(context, T, "99", max_chunks=1)] == ["code X-99"]
        for odd in ("", "?!", "zebra", "\0", "') OR 1=1 --", 'NOT "', "+- *", "word " * 5000):
            assert index.match(context, T, odd, max_chunks=3) == []
        with pytest.raises(BadRequest):
            index.match(context, T, "\ud800", max_chunks=3)
        with pytest.raises(NotFound):
            index.match(context, "nowhere", "x", max_chunks=3)
