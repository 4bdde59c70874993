"""Tables get indexed, compacted and cleaned, and stay right while that goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.config import VectorSettings
from backends.context import CallContext
from backends.errors import NotFound
from backends.lance.database import LanceDatabase
from backends.lance.lease import MaintenanceLease
from backends.lance.maintenance import Maintainer, Step, TableState, next_step
from backends.lance.vectors import LanceVectorIndex, chunk_table
from backends.ports import VectorChunk
from tests.backends.lance.vector_suite import START, Clock, T, chunk, units

DEADLINE_S = 60


def clustered(rows: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors around 100 centres, as embeddings of texts on some topics are."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((100, dimension))
    vectors = centres[random.integers(0, 100, rows)] + 0.7 * random.standard_normal((rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def chunks(start: int, count: int) -> list[VectorChunk]:
    return [chunk(number) for number in range(start, start + count)]


class Parts:
    """An index without its thread, a maintainer with clocks of its own, and a view of what is on disk."""

    def __init__(self, directory: Path, index_rows: int) -> None:
        self.directory = directory
        self.clock = Clock()
        self.seconds = 0.0
        settings = VectorSettings(index_rows=index_rows)
        self.index = LanceVectorIndex(str(directory), settings, clock=self.clock, background=False)
        self.database = LanceDatabase(str(directory), chunk_table)
        self.maintainer = Maintainer(
            self.database,
            settings,
            now=self.clock,
            clock=lambda: self.seconds,
            keep_versions=timedelta(milliseconds=1),
        )

    def state(self) -> TableState:
        return self.database.run(T, lambda table: table.state())

    def versions(self) -> int:
        return len(list((self.directory / f"{T}.lance" / "_versions").glob("*.manifest")))

    def close(self) -> None:
        self.maintainer.close()
        self.index.close()
        self.database.close()


@pytest.fixture
def make_parts(tmp_path: Path) -> Iterator[Callable[..., Parts]]:
    opened: list[Parts] = []

    def make(index_rows: int = 256) -> Parts:
        opened.append(Parts(tmp_path / "lance", index_rows))
        return opened[-1]

    yield make
    for parts in opened:
        parts.close()


@pytest.fixture
def parts(make_parts: Callable[..., Parts], context: CallContext) -> Parts:
    parts = make_parts()
    parts.index.create(context, T, 8)
    return parts


def test_an_indexed_table_finds_99_of_100_nearest_chunks_and_its_new_rows(
    make_parts: Callable[..., Parts], context: CallContext
) -> None:
    rows, tail, dimension = 20_000, 500, 32
    vectors, queries = clustered(rows + tail, dimension, seed=1), clustered(100, dimension, seed=2)
    parts = make_parts(index_rows=5000)
    parts.index.create(context, T, dimension)
    parts.index.insert(context, T, chunks(0, rows), vectors[:rows])
    assert parts.maintainer.maintain(T) == ["build"]
    assert parts.state() == TableState(rows, 1, indexed=rows, unindexed=0, parts=1)

    def recall(count: int) -> float:
        nearest = np.argsort(-(vectors[:count] @ queries.T), axis=0)[:10].T
        found = [parts.index.query(context, T, query, max_chunks=10) for query in queries]
        hits = [
            len({hit.chunk.content for hit in row} & set(true.tolist()))
            for row, true in zip(found, nearest, strict=True)
        ]
        return sum(hits) / (10 * len(queries))

    assert recall(rows) >= 0.99
    parts.index.insert(context, T, chunks(rows, tail), vectors[rows:])
    assert parts.state().unindexed == tail
    assert recall(rows + tail) >= 0.99
    for number in (rows, rows + tail - 1):
        best = parts.index.query(context, T, vectors[number], max_chunks=1)[0]
        assert (best.chunk.content, best.score) == (number, 1.0)


def test_a_small_table_gets_no_index(parts: Parts, context: CallContext) -> None:
    parts.index.insert(context, T, chunks(0, 255), units(255))
    assert parts.maintainer.maintain(T) == []
    assert parts.state() == TableState(255, 1, text_unindexed=255)


def test_many_small_inserts_become_one_fragment(parts: Parts, context: CallContext) -> None:
    for number in range(40):
        parts.index.insert(context, T, chunks(number, 1), units(1, seed=number))
    assert parts.state().fragments == 40
    assert parts.maintainer.maintain(T) == ["optimize"]
    assert parts.state() == TableState(40, 1)
    assert parts.index.count(context, T) == 40


def test_a_long_tail_is_folded_into_the_index(parts: Parts, context: CallContext) -> None:
    parts.index.insert(context, T, chunks(0, 3000), units(3000))
    parts.maintainer.maintain(T)
    parts.index.insert(context, T, chunks(3000, 1200), units(1200, seed=1))
    assert parts.state().unindexed == 1200
    assert parts.maintainer.maintain(T) == ["optimize"]
    state = parts.state()
    assert (state.indexed, state.unindexed) == (4200, 0)
    best = parts.index.query(context, T, units(1200, seed=1)[7], max_chunks=1)[0]
    assert best.chunk.content == 3007


def test_an_index_of_many_parts_is_built_anew(parts: Parts, context: CallContext) -> None:
    parts.index.insert(context, T, chunks(0, 3000), units(3000))
    parts.maintainer.maintain(T)
    steps: list[list[Step]] = []
    for part in range(4):
        parts.index.insert(context, T, chunks(3000 + 1000 * part, 1000), units(1000, seed=part))
        steps.append(parts.maintainer.maintain(T))
    assert steps == [["optimize"], ["optimize"], ["optimize"], ["optimize", "build"]]
    assert parts.state() == TableState(7000, 1, indexed=7000, unindexed=0, parts=1)


@pytest.mark.parametrize(
    ("state", "step"),
    [
        (TableState(0, 0), "none"),
        (TableState(4999, 32), "none"),
        (TableState(4999, 33), "optimize"),
        (TableState(5000, 1), "build"),
        (TableState(100_000, 1, 100_000, 0, 1), "none"),
        (TableState(101_999, 2, 100_000, 1999, 1), "none"),
        (TableState(102_000, 2, 100_000, 2000, 1), "optimize"),
        (TableState(1_004_000, 2, 1_000_000, 4000, 1), "optimize"),
        (TableState(100_034, 35, 100_000, 34, 1), "optimize"),
        (TableState(160_000, 2, 100_000, 60_000, 1), "build"),
        (TableState(100_000, 4, 100_000, 0, 4), "none"),
        (TableState(100_000, 5, 100_000, 0, 5), "build"),
    ],
)
def test_what_a_table_needs_follows_from_its_sizes(state: TableState, step: Step) -> None:
    assert next_step(state, 5000) == step


def test_a_rebuild_waits_while_the_last_one_was_recent_and_the_tail_is_folded_in_meanwhile() -> None:
    assert next_step(TableState(160_000, 2, 100_000, 60_000, 1), 5000, may_rebuild=False) == "optimize"
    assert next_step(TableState(100_000, 5, 100_000, 0, 5), 5000, may_rebuild=False) == "none"


def test_expired_rows_are_deleted_and_nothing_is_written_when_there_are_none(
    parts: Parts, context: CallContext
) -> None:
    soon = [VectorChunk("soon", {}, expires_at=START + timedelta(seconds=1))] * 30
    parts.index.insert(context, T, soon + chunks(0, 5), units(35))
    version = parts.database.run(T, lambda table: table.version())
    parts.maintainer.maintain(T)
    assert parts.database.run(T, lambda table: table.version()) == version
    parts.clock.now += timedelta(seconds=2)
    parts.maintainer.maintain(T)
    assert parts.state().rows == 5
    assert parts.index.count(context, T) == 5


def test_expired_rows_of_an_indexed_table_are_not_found(parts: Parts, context: CallContext) -> None:
    vectors = units(1000)
    soon = [VectorChunk(number, {}, expires_at=START + timedelta(seconds=1)) for number in range(0, 1000, 2)]
    parts.index.insert(context, T, soon, vectors[::2])
    parts.index.insert(context, T, [chunk(number) for number in range(1, 1000, 2)], vectors[1::2])
    parts.maintainer.maintain(T)
    assert parts.state().indexed == 1000
    parts.clock.now += timedelta(seconds=2)
    odd = np.argsort(-(vectors[1::2] @ vectors[0]))[:10] * 2 + 1
    assert [hit.chunk.content for hit in parts.index.query(context, T, vectors[0], max_chunks=10)] == odd.tolist()


def test_old_versions_are_removed_after_their_time(parts: Parts, context: CallContext) -> None:
    for number in range(10):
        parts.index.insert(context, T, chunks(number, 1), units(1, seed=number))
    parts.maintainer.maintain(T)
    assert parts.versions() == 12
    parts.seconds += 1
    parts.maintainer.maintain(T)
    assert parts.versions() <= 3, "the one that was renewed, and those in which the index took its tail"
    assert parts.index.count(context, T) == 10


def test_equal_vectors_are_all_found_in_an_indexed_table(parts: Parts, context: CallContext) -> None:
    parts.index.insert(context, T, chunks(0, 2000), np.tile(units(1), (2000, 1)))
    parts.maintainer.maintain(T)
    assert parts.state().indexed == 2000
    hits = parts.index.query(context, T, units(1)[0], max_chunks=500)
    assert len({hit.chunk.content for hit in hits}) == 500


def test_inserts_and_queries_go_on_while_an_index_is_built(parts: Parts, context: CallContext) -> None:
    parts.index.insert(context, T, chunks(0, 5000), units(5000))
    building = threading.Thread(target=lambda: parts.maintainer.maintain(T))
    building.start()
    inserted = 5000
    while building.is_alive() or inserted == 5000:
        vector = units(1, seed=inserted)
        parts.index.insert(context, T, chunks(inserted, 1), vector)
        assert parts.index.query(context, T, vector[0], max_chunks=1)[0].chunk.content == inserted
        inserted += 1
    building.join()
    assert parts.index.count(context, T) == inserted
    assert parts.state().indexed is not None


def test_only_one_process_maintains_a_location_and_another_takes_over(tmp_path: Path) -> None:
    first, second = MaintenanceLease(tmp_path), MaintenanceLease(tmp_path)
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_who_does_not_hold_the_lease_leaves_the_tables_alone(parts: Parts, context: CallContext) -> None:
    other = MaintenanceLease(parts.directory)
    assert other.acquire()
    parts.index.insert(context, T, chunks(0, 300), units(300))
    assert parts.maintainer.maintain(T) == []
    assert parts.state().indexed is None
    other.release()
    assert parts.maintainer.maintain(T) == ["build"]


def test_maintaining_a_table_that_is_not_there_says_so(parts: Parts) -> None:
    with pytest.raises(NotFound):
        parts.maintainer.maintain("other")


def test_one_damaged_table_does_not_keep_the_others_from_their_index(parts: Parts, context: CallContext) -> None:
    parts.index.create(context, "a_first", 8)
    for manifest in (parts.directory / "a_first.lance" / "_versions").iterdir():
        manifest.write_bytes(b"damaged")
    parts.index.insert(context, T, chunks(0, 300), units(300))
    parts.maintainer.maintain_all()
    assert parts.state().indexed == 300


def test_the_thread_finds_what_needs_an_index_and_stops(tmp_path: Path, context: CallContext) -> None:
    settings = VectorSettings(index_rows=256, maintenance_s=0.05)
    index = LanceVectorIndex(str(tmp_path), settings)
    index.create(context, T, 8)
    index.insert(context, T, chunks(0, 300), units(300))
    deadline = time.monotonic() + DEADLINE_S
    database = LanceDatabase(str(tmp_path), chunk_table)
    indexed = threading.Event()
    while not indexed.wait(0.02) and time.monotonic() < deadline:
        if database.run(T, lambda table: table.state()).indexed:
            indexed.set()
    index.close()
    database.close()
    assert indexed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lance")]


def test_closing_ends_a_build_and_keeps_every_row(
    tmp_path: Path, context: CallContext, caplog: pytest.LogCaptureFixture
) -> None:
    settings = VectorSettings(index_rows=256, maintenance_s=0.01)
    index = LanceVectorIndex(str(tmp_path), settings, background=False)
    index.create(context, T, 64)
    index.insert(context, T, chunks(0, 20_000), units(20_000, 64))
    index.close()
    busy = LanceVectorIndex(str(tmp_path), settings)
    indices = tmp_path / f"{T}.lance" / "_indices"
    deadline = time.monotonic() + DEADLINE_S
    while not indices.exists() and time.monotonic() < deadline:
        busy.count(context, T)
    busy.close()
    assert indices.exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lance")]
    assert "failed" not in caplog.text
    again = LanceVectorIndex(str(tmp_path), VectorSettings(index_rows=30_000), background=False)
    assert again.count(context, T) == 20_000
    again.close()
