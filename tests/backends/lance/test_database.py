"""Full disks, damaged files, several processes, kills, and what stays open (faults 6, 7, 9, 10 and 19)."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lancedb
import pyarrow as pa
import pytest

from backends.config import VectorSettings
from backends.context import CallContext
from backends.errors import NotFound, StackError, StorageFull, Unavailable
from backends.lance.failures import is_conflict, is_vanished, translated
from backends.lance.vectors import LanceVectorIndex
from tests.backends.lance.vector_suite import T, chunk, tables_of, units
from tests.backends.processes import PROCESSES, run_at_once

HERE = CallContext("test")


def open_index(directory: Path) -> LanceVectorIndex:
    return LanceVectorIndex(str(directory), VectorSettings(), background=False)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "lance"


@pytest.fixture
def index(directory: Path) -> Iterator[LanceVectorIndex]:
    index = open_index(directory)
    index.create(HERE, T, 8)
    yield index
    index.close()


def write(directory: str, worker: int, threads: int, inserts: int) -> None:
    """Insert from several threads; the process fails if one of them does."""
    index = open_index(Path(directory))
    failures: list[BaseException] = []

    def insert(thread: int) -> None:
        try:
            for number in range(inserts):
                index.insert(HERE, T, [chunk(f"{worker}-{thread}-{number}")], units(1, seed=thread))
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=insert, args=(thread,)) for thread in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    index.close()
    if failures:
        raise failures[0]


def test_inserts_of_four_processes_with_eight_threads_each_are_all_kept(
    index: LanceVectorIndex, directory: Path
) -> None:
    assert run_at_once(write, [(str(directory), worker, 8, 4) for worker in range(4)]) == [0] * 4
    assert index.count(HERE, T) == 4 * 8 * 4
    found = {hit.chunk.content for hit in index.query(HERE, T, units(1)[0], max_chunks=1000)}
    assert found == {f"{w}-{t}-{n}" for w in range(4) for t in range(8) for n in range(4)}


def test_a_table_of_a_release_with_other_columns_is_refused(index: LanceVectorIndex, directory: Path) -> None:
    columns = pa.schema([("id", pa.string()), ("content", pa.string()), ("vector", pa.list_(pa.float32(), 8))])
    lancedb.connect(str(directory)).create_table("old", schema=columns)
    with pytest.raises(Unavailable, match="lacks the column document_id: another release wrote it"):
        index.query(HERE, "old", units(1)[0], max_chunks=1)
    with pytest.raises(Unavailable, match="another release"):
        index.create(HERE, "old", 8)


def create_and_drop(directory: str, name: str) -> None:
    index = open_index(Path(directory))
    for _ in range(5):
        index.create(HERE, name, 8)
        index.drop(HERE, name)
    index.create(HERE, name, 8)
    index.close()


def test_processes_that_create_and_drop_one_table_at_once_do_not_fail(index: LanceVectorIndex, directory: Path) -> None:
    codes = run_at_once(create_and_drop, [(str(directory), "shared")] * 2)
    assert codes == [0] * 2


def follow(directory: str, say: Callable[[object], None], hear: Callable[[], object]) -> None:
    """Count whenever asked, with one open index."""
    index = open_index(Path(directory))
    while hear() != "stop":
        try:
            say(index.count(HERE, T))
        except NotFound:
            say("gone")
    index.close()


def test_another_process_sees_inserts_and_drops_at_once(index: LanceVectorIndex, directory: Path) -> None:
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=follow, args=(str(directory), theirs.send, theirs.recv))
    process.start()
    try:
        for number in range(20):
            ours.send("count")
            assert ours.recv() == number
            index.insert(HERE, T, [chunk(number)], units(1))
        index.drop(HERE, T)
        ours.send("count")
        assert ours.recv() == "gone"
        ours.send("stop")
        process.join(60)
    finally:
        process.kill()


def insert_until_killed(directory: str, say: Callable[[object], None]) -> None:
    index = open_index(Path(directory))
    for number in range(10_000):
        index.insert(HERE, T, [chunk(number)], units(1, seed=number))
        say(number)


def test_what_was_inserted_survives_a_kill(index: LanceVectorIndex, directory: Path) -> None:
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=insert_until_killed, args=(str(directory), theirs.send))
    process.start()
    theirs.close()
    last = -1
    while last < 20:
        last = ours.recv()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    while True:
        try:
            last = ours.recv()
        except EOFError:
            break
    found = {hit.chunk.content for hit in index.query(HERE, T, units(1)[0], max_chunks=10_000)}
    assert found >= set(range(last + 1))
    index.insert(HERE, T, [chunk("next")], units(1))
    assert index.count(HERE, T) == len(found) + 1


def test_what_was_inserted_is_there_after_a_close(index: LanceVectorIndex, directory: Path) -> None:
    index.insert(HERE, T, [chunk("kept")], units(1))
    index.close()
    again = open_index(directory)
    assert [hit.chunk.content for hit in again.query(HERE, T, units(1)[0], max_chunks=5)] == ["kept"]
    again.close()


def test_all_tables_are_listed_however_many_pages_they_fill(
    index: LanceVectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.lance.database._LIST_PAGE", 2)
    names = [f"t{number}" for number in range(6)]
    for name in names:
        index.create(HERE, name, 8)
    assert sorted(tables_of(index)) == [*names, T]


def test_what_is_kept_in_memory_of_dropped_tables_has_a_limit(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 200_000
    monkeypatch.setattr("backends.lance.database.METADATA_CACHE_BYTES", limit)
    index = open_index(directory)
    for number in range(40):
        table = f"t{number}"
        index.create(HERE, table, 8)
        index.insert(HERE, table, [chunk()], units(1))
        index.query(HERE, table, units(1)[0], max_chunks=1)
        index.drop(HERE, table)
    assert index._database._session is not None
    assert index._database._session.cache is not None
    assert index._database._session.cache.size_bytes < 2 * limit
    index.close()


def test_a_dropped_table_leaves_no_file(index: LanceVectorIndex, directory: Path) -> None:
    index.insert(HERE, T, [chunk()], units(1))
    assert list(directory.rglob("*.lance"))
    index.drop(HERE, T)
    assert [path for path in directory.rglob("*") if T in str(path)] == []


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: every kind of "no room" takes the same way from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_so_and_the_next_insert_works_when_there_is_room(index: LanceVectorIndex) -> None:
    index.insert(HERE, T, [chunk("before")], units(1))
    with file_size_limit(10_000), pytest.raises(StorageFull, match=T):
        index.insert(HERE, T, [chunk("x" * 100_000)], units(1))
    assert index.count(HERE, T) == 1
    index.insert(HERE, T, [chunk("after")], units(1))
    assert index.count(HERE, T) == 2


@pytest.mark.parametrize("number", [28, 122, 27, 30])
def test_no_room_no_quota_too_large_and_read_only_are_all_a_full_storage(number: int) -> None:
    error = translated(RuntimeError(f"lance error: LanceError(IO): something (os error {number}), /rustc/x.rs:1:2"), T)
    assert isinstance(error, StorageFull)
    assert "rustc" not in error.message
    assert isinstance(translated(OSError(number, "something"), T), StorageFull)


@pytest.mark.parametrize("text", ["Directory not empty (os error 39)", "No such file or directory (os error 2)"])
def test_files_that_come_or_go_during_an_operation_are_a_reason_to_try_again(text: str) -> None:
    assert is_vanished(RuntimeError(f"lance error: LanceError(IO): {text}"))


def test_too_many_writers_may_be_retried_and_damage_may_not() -> None:
    conflict = RuntimeError("lance error: Retryable commit conflict for version 7")
    assert is_conflict(conflict)
    assert translated(conflict, T).retry_after_s is not None  # type: ignore[attr-defined]
    assert translated(RuntimeError("bad bytes"), T).retry_after_s is None  # type: ignore[attr-defined]


DAMAGE: dict[str, Callable[[Path], None]] = {
    "manifest of garbage": lambda table: overwrite(table / "_versions", b"garbage" * 9),
    "empty manifest": lambda table: overwrite(table / "_versions", b""),
    "no data file": lambda table: shutil.rmtree(table / "data"),
    "data of garbage": lambda table: overwrite(table / "data", b"garbage" * 90),
    "data cut off": lambda table: cut_off(table / "data"),
}


def overwrite(folder: Path, content: bytes) -> None:
    for path in folder.iterdir():
        path.write_bytes(content)


def cut_off(folder: Path) -> None:
    for path in folder.iterdir():
        os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_table_is_named_and_the_others_serve_on(
    index: LanceVectorIndex, directory: Path, damage: Callable[[Path], None]
) -> None:
    index.insert(HERE, T, [chunk()], units(1))
    index.create(HERE, "sound", 8)
    index.insert(HERE, "sound", [chunk()], units(1))
    index.close()
    damage(directory / f"{T}.lance")
    again = open_index(directory)
    with pytest.raises(Unavailable, match=T) as refused:
        again.query(HERE, T, units(1)[0], max_chunks=1)
    assert refused.value.retry_after_s is None
    assert ".rs" not in str(refused.value)
    assert str(directory) not in refused.value.message
    assert refused.value.internal
    assert again.count(HERE, "sound") == 1
    again.drop(HERE, T)
    assert tables_of(again) == ["sound"]
    again.close()


def test_a_place_that_is_no_directory_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    index = open_index(tmp_path / "file")
    with pytest.raises(StackError):
        index.create(HERE, T, 8)
    with pytest.raises(Unavailable, match="file"):
        index.ping()
    index.close()


def test_a_closed_index_says_so_and_closes_twice(index: LanceVectorIndex) -> None:
    index.ping()
    index.close()
    index.close()
    with pytest.raises(Unavailable, match="closed"):
        index.ping()
    with pytest.raises(Unavailable, match="closed"):
        index.count(HERE, T)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_opening_and_closing_leaves_no_file_or_thread_open(directory: Path) -> None:
    def use() -> None:
        index = LanceVectorIndex(str(directory), VectorSettings())
        index.create(HERE, T, 8)
        index.insert(HERE, T, [chunk()], units(1))
        index.maintain(T)
        index.close()

    use()
    files, threads = open_files(), threading.active_count()
    for _ in range(20):
        use()
    assert open_files() <= files + 2
    assert threading.active_count() <= threads


def test_lancedb_is_not_imported_before_its_first_use(directory: Path) -> None:
    code = (
        "import sys; from backends.lance.vectors import LanceVectorIndex; from backends.config import VectorSettings;"
        f"index = LanceVectorIndex({str(directory)!r}, VectorSettings()); index.ping(); index.close();"
        "sys.exit('lancedb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
