"""What is acknowledged is on disk, and a machine that stops within a commit costs that commit only (fault 8)."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from backends.config import VectorSettings
from backends.context import CallContext
from backends.errors import StackError, StorageFull, Unavailable
from backends.lance.database import LanceDatabase
from backends.lance.durability import HINT, Flusher, set_aside_torn_versions
from backends.lance.maintenance import Maintainer
from backends.lance.vectors import LanceVectorIndex, chunk_table
from tests.backends.lance.vector_suite import START, Clock, T, chunk, units
from tests.backends.processes import run_at_once

HERE = CallContext("test")
DEADLINE_S = 60


class Disk:
    """An fsync that notes what it was called for, and fails where told to."""

    def __init__(self) -> None:
        self.flushed: list[Path] = []
        self.error: tuple[str, int] | None = None
        self.only_directories = False
        self.before: Callable[[], None] = lambda: None

    def __call__(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        self.before()
        if self.error is not None and self.error[0] in str(path) and (path.is_dir() or not self.only_directories):
            raise OSError(self.error[1], os.strerror(self.error[1]))
        self.flushed.append(path)

    def missing(self, root: Path) -> set[str]:
        """What exists and was never flushed. LanceDB does without its hint, which tells an old version at worst."""
        found = {path for path in [root, *root.rglob("*")] if path.name != HINT}
        return {str(path.relative_to(root)) for path in found - set(self.flushed)}


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "lance"


@pytest.fixture
def index(directory: Path, disk: Disk) -> Iterator[LanceVectorIndex]:
    index = LanceVectorIndex(str(directory), VectorSettings(index_rows=256), background=False, fsync=disk)
    index.create(HERE, T, 8)
    yield index
    index.close()


@pytest.fixture
def table(directory: Path) -> Path:
    return directory / f"{T}.lance"


def test_a_created_table_is_on_disk_with_the_directories_that_lead_to_it(
    index: LanceVectorIndex, disk: Disk, table: Path
) -> None:
    assert disk.missing(table) == set()
    assert {table, table.parent, table.parent.parent} <= set(disk.flushed)


def test_everything_of_an_insert_is_on_disk_and_is_flushed_once(
    index: LanceVectorIndex, disk: Disk, table: Path
) -> None:
    index.insert(HERE, T, [chunk()], units(1))
    assert disk.missing(table) == set()
    for number in range(3):
        before = set(table.rglob("*"))
        disk.flushed.clear()
        index.insert(HERE, T, [chunk(number)], units(1))
        new = set(table.rglob("*")) - before
        assert {path.parent.name for path in new} == {"data", "_transactions", "_versions"}
        assert sorted(disk.flushed) == sorted(new | {path.parent for path in new})


def test_a_version_is_flushed_after_what_it_needs_and_before_its_directory(
    index: LanceVectorIndex, disk: Disk, table: Path
) -> None:
    disk.flushed.clear()
    index.insert(HERE, T, [chunk()], units(1))
    files = [path for path in disk.flushed if path.is_file()]
    assert files[-1].suffix == ".manifest"
    assert [path.parent.name for path in files].index("_versions") >= len(files) - 3
    assert not any(path.is_dir() for path in disk.flushed[: len(files)])


def test_what_maintenance_wrote_is_on_disk_and_old_versions_stay_until_it_is(
    index: LanceVectorIndex, disk: Disk, directory: Path, table: Path
) -> None:
    for number in range(3):
        soon = [chunk(row, expires_at=START) for row in range(10)]
        index.insert(HERE, T, [*soon, *[chunk()] * 90], units(100, seed=number))
    seconds = 0.0
    database = LanceDatabase(str(directory), chunk_table, fsync=disk)
    settings, keep = VectorSettings(index_rows=256), timedelta(milliseconds=1)
    maintainer = Maintainer(database, settings, now=Clock(), clock=lambda: seconds, keep_versions=keep)
    versions: list[int] = []
    disk.before = lambda: versions.append(len(list((table / "_versions").glob("*.manifest"))))
    assert maintainer.maintain(T) == ["build"]
    assert {path.name for path in table.iterdir()} >= {"_indices", "_deletions"}
    assert disk.missing(table) == set()
    kept = versions[-1]
    assert kept > 4
    versions.clear()
    seconds = 1.0
    maintainer.maintain(T)
    assert versions[0] == kept + 1, "a young version replaces the old ones and is flushed before they go"
    assert len(list((table / "_versions").glob("*.manifest"))) == 1
    assert disk.missing(table) == set()
    maintainer.close()
    database.close()


def test_inserts_at_once_share_flushes_and_none_returns_before_its_own(
    index: LanceVectorIndex, disk: Disk, directory: Path, table: Path
) -> None:
    index.insert(HERE, T, [chunk()], units(1))
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go.wait(DEADLINE_S)

    before, disk.before = disk.flushed.count(table / "_versions"), hold
    returned: list[int] = []

    def insert(number: int) -> None:
        index.insert(HERE, T, [chunk(number)], units(1))
        returned.append(number)

    threads = [threading.Thread(target=insert, args=(number,)) for number in range(8)]
    threads[0].start()
    assert held.wait(DEADLINE_S)
    for thread in threads[1:]:
        thread.start()
    deadline = time.monotonic() + DEADLINE_S
    while index.count(HERE, T) < 9 and time.monotonic() < deadline:
        pass
    assert returned == []
    go.set()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(returned) == list(range(8))
    assert disk.missing(table) == set()
    assert disk.flushed.count(table / "_versions") == before + 2


def test_what_another_process_wrote_is_flushed_with_what_is_built_on_it(
    index: LanceVectorIndex, disk: Disk, directory: Path, table: Path
) -> None:
    other = LanceVectorIndex(str(directory), VectorSettings(), background=False, fsync=lambda _: None)
    other.insert(HERE, T, [chunk()], units(1))
    index.insert(HERE, T, [chunk()], units(1))
    assert disk.missing(table) == set()
    # The names of the versions of a table made anew are those of the old one.
    other.drop(HERE, T)
    other.create(HERE, T, 8)
    other.insert(HERE, T, [chunk()], units(1))
    disk.flushed.clear()
    index.insert(HERE, T, [chunk()], units(1))
    assert disk.missing(table) == set()
    other.close()


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, Unavailable)]
)
@pytest.mark.parametrize("place", ["/data/", ".manifest", "/_versions"])
def test_a_failed_flush_is_told_and_no_later_insert_is_acknowledged_on_top_of_it(
    index: LanceVectorIndex, disk: Disk, number: int, expected: type[StackError], place: str
) -> None:
    index.insert(HERE, T, [chunk()], units(1))
    disk.error = place, number
    with pytest.raises(expected, match=T):
        index.insert(HERE, T, [chunk()], units(1))
    disk.error = None
    with pytest.raises(Unavailable, match="earlier"):
        index.insert(HERE, T, [chunk()], units(1))
    index.drop(HERE, T)
    index.create(HERE, T, 8)
    index.insert(HERE, T, [chunk()], units(1))


def test_a_file_system_that_cannot_flush_directories_is_no_failure(index: LanceVectorIndex, disk: Disk) -> None:
    disk.only_directories, disk.error = True, ("/", errno.EINVAL)
    index.insert(HERE, T, [chunk()], units(1))


def test_object_storage_needs_no_flush(disk: Disk) -> None:
    Flusher(None, disk).flush(T)
    assert disk.flushed == []


TORN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "zeros at the start": lambda content: bytes(len(content) - 16) + content[-16:],
    "cut off": lambda content: content[:-1],
    "garbage": lambda content: b"garbage" * 90,
}


@pytest.mark.parametrize("tear", TORN.values(), ids=TORN.keys())
@pytest.mark.parametrize("count", [1, 2])
def test_a_table_whose_newest_versions_are_torn_is_what_it_was_before_them(
    index: LanceVectorIndex,
    directory: Path,
    table: Path,
    tear: Callable[[bytes], bytes],
    count: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(4):
        index.insert(HERE, T, [chunk(number)], units(1))
    index.close()
    torn = sorted((table / "_versions").glob("*.manifest"))[:count]
    for path in torn:
        path.write_bytes(tear(path.read_bytes()))
    for add in range(2):
        again = LanceVectorIndex(str(directory), VectorSettings(), background=False)
        found = [hit.chunk.content for hit in again.query(HERE, T, units(1)[0], max_chunks=9)]
        assert sorted(found) == [*range(4 - count), *range(10, 10 + add)]
        again.insert(HERE, T, [chunk(10 + add)], units(1))
        again.maintain(T)
        again.close()
    assert len(list((table / "_versions").glob("*.torn"))) == count
    told = [record.getMessage() for record in caplog.records if "incomplete" in record.getMessage()]
    assert [f"version {6 - number}" in message for number, message in enumerate(told)] == [True] * count
    assert all(f"back to version {6 - count}" in message for message in told)


def test_a_version_that_another_process_commits_in_place_of_the_torn_one_stays(
    index: LanceVectorIndex, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.insert(HERE, T, [chunk()], units(1))
    newest = min((table / "_versions").glob("*.manifest"))
    whole = newest.read_bytes()
    newest.write_bytes(b"")
    monkeypatch.setattr("fcntl.flock", lambda descriptor, operation: newest.write_bytes(whole))
    set_aside_torn_versions(table)
    assert newest.read_bytes() == whole


def test_processes_that_meet_a_torn_version_at_once_lose_nothing_of_each_other(
    index: LanceVectorIndex, directory: Path, table: Path
) -> None:
    index.insert(HERE, T, [chunk("before")], units(1))
    index.close()
    min((table / "_versions").glob("*.manifest")).write_bytes(b"")
    codes = run_at_once(open_and_insert, [(str(directory), name) for name in "abc"])
    assert codes == [0] * 3
    again = LanceVectorIndex(str(directory), VectorSettings(), background=False)
    assert sorted(hit.chunk.content for hit in again.query(HERE, T, units(1)[0], max_chunks=9)) == ["a", "b", "c"]
    again.close()


def open_and_insert(directory: str, name: str) -> None:
    index = LanceVectorIndex(directory, VectorSettings(), background=False)
    index.insert(HERE, T, [chunk(name)], units(1))
    index.close()
