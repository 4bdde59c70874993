"""Tables of rows on Lance: order, bounded reads, many writers in many processes, kills and full flushes."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from backends.context import CallContext
from backends.datasets.columns import Column
from backends.datasets.filters import parse_filter
from backends.errors import NotFound
from backends.lance.row_store import MAX_FRAGMENTS, LanceRowStore
from tests.backends.processes import PROCESSES

T = "dataset_1"
COLUMNS = (Column("n", "number"), Column("t", "string"))
HERE = CallContext(request_id="test")
DEADLINE_S = 60


def row(number: int, text: str = "x") -> dict[str, Any]:
    return {"n": number, "t": text}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LanceRowStore]:
    opened = LanceRowStore(str(tmp_path))
    yield opened
    opened.close()


def numbers(store: LanceRowStore, **more: Any) -> list[int]:
    return [found["n"] for found in store.scan(HERE, T, COLUMNS, **more)]


def test_rows_keep_their_order_through_appends_and_compaction(store: LanceRowStore) -> None:
    store.create(HERE, T, COLUMNS, (row(number) for number in range(3000)))
    for number in range(3000, 3000 + 2 * MAX_FRAGMENTS):
        store.append(HERE, T, COLUMNS, [row(number)])
    assert numbers(store) == list(range(3000 + 2 * MAX_FRAGMENTS))
    assert numbers(store, start=2998, limit=4) == [2998, 2999, 3000, 3001]
    odd = parse_filter("n in (3, 2999, 3001)", COLUMNS)
    assert numbers(store, condition=odd) == [3, 2999, 3001]
    assert numbers(store, condition=odd, start=1, limit=1) == [2999]


def test_what_taking_the_rows_raises_comes_out_and_leaves_no_table(store: LanceRowStore) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield row(1)
        raise ValueError("broken source")

    with pytest.raises(ValueError, match="broken source"):
        store.create(HERE, T, COLUMNS, broken())
    with pytest.raises(NotFound):
        store.count(HERE, T)


def test_a_dropped_table_is_gone_and_dropping_again_changes_nothing(store: LanceRowStore) -> None:
    store.create(HERE, T, COLUMNS, [])
    assert store.count(HERE, T) == 0
    store.drop(HERE, T)
    store.drop(HERE, T)
    with pytest.raises(NotFound):
        list(store.scan(HERE, T, COLUMNS))
    with pytest.raises(NotFound):
        store.append(HERE, T, COLUMNS, [row(1)])


def test_what_is_acknowledged_is_on_disk(tmp_path: Path) -> None:
    flushed: list[Path] = []

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").resolve())
        os.fsync(descriptor)

    store = LanceRowStore(str(tmp_path), fsync=fsync)
    store.create(HERE, T, COLUMNS, [row(1)])
    store.append(HERE, T, COLUMNS, [row(2)])
    store.close()
    written = {path for path in (tmp_path / f"{T}.lance").rglob("*") if path.suffix in (".lance", ".manifest")}
    assert {path for path in written if path.is_file()} <= set(flushed)


def test_many_rows_are_paged_in_bounded_memory_and_constant_time(store: LanceRowStore) -> None:
    count = 300_000
    store.create(HERE, T, COLUMNS[:1], ({"n": number} for number in range(count)))
    seconds = []
    for start in (0, count // 2, count - 100):
        began = time.perf_counter()
        page = [found["n"] for found in store.scan(HERE, T, COLUMNS[:1], start=start, limit=100)]
        seconds.append(time.perf_counter() - began)
        assert page == list(range(start, start + 100))
    tracemalloc.start()
    assert sum(1 for _ in store.scan(HERE, T, COLUMNS[:1], start=count - 50_000)) == 50_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert max(seconds[1:]) < 20 * seconds[0] + 0.05


def write(location: Path, pipe: Connection, writer: int) -> None:
    """Append twenty batches of three by two threads; say after each which it was."""
    store = LanceRowStore(str(location))

    def append(number: int) -> None:
        store.append(HERE, T, COLUMNS, [row(writer * 1000 + number, str(part)) for part in range(3)])
        pipe.send(number)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(append, range(20)))
    pipe.close()


def test_eight_writers_in_four_processes_lose_nothing_and_split_no_batch(store: LanceRowStore, tmp_path: Path) -> None:
    store.create(HERE, T, COLUMNS, [])
    processes, pipes = [], []
    for writer in range(4):
        ours, theirs = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=write, args=(tmp_path, theirs, writer))
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(ours)
    assert pipes[0].poll(DEADLINE_S)
    killed = processes[0]
    assert killed.pid is not None
    killed.kill()
    acknowledged = set()
    for writer, pipe in enumerate(pipes):
        try:
            while pipe.poll(DEADLINE_S):
                acknowledged.add(writer * 1000 + pipe.recv())
        except EOFError:
            pass
    for process in processes:
        process.join(DEADLINE_S)
    assert [process.exitcode for process in processes[1:]] == [0] * 3
    found = list(store.scan(HERE, T, COLUMNS))
    assert acknowledged <= {each["n"] for each in found}
    assert len(acknowledged) >= 3 * 20
    batches = [found[place : place + 3] for place in range(0, len(found), 3)]
    assert all(
        [part["t"] for part in batch] == ["0", "1", "2"] and len({p["n"] for p in batch}) == 1 for batch in batches
    )
