"""What LanceDB wrote is put on disk before it is acknowledged, and a table outlives the machine's stop.

LanceDB writes files under temporary names, renames them and flushes nothing, so a machine that stops can lose what was
acknowledged. A commit is acknowledged here only after `Flusher.flush`. It flushes the version file (manifest) last: a
machine that stops before leaves the version torn, which nobody was told of, and `set_aside_torn_versions` goes back to
the one before it. fsync(2), and "Files are hard" by Dan Luu on why directories are flushed too.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from backends.lance.failures import translated

log = logging.getLogger(__name__)

VERSIONS = "_versions"
TORN = ".torn"
# Overwritten by each commit; LanceDB does without it, and with an old, empty or wrong one.
HINT = "latest_version_hint.json"
_FOOTER = struct.Struct("<q2H4s")
_MANIFEST = re.compile(r"\d{20}\.manifest")
_NO_DIRECTORY_FLUSH = {errno.EINVAL, errno.ENOTSUP}


class Flusher:
    """Flushes what is new in the tables of one directory, for any number of threads.

    Names seen before are not flushed again: LanceDB changes no file once it has its name. A process that comes new to
    a table flushes all of it, whoever wrote it. directory: of the tables, None for object storage, where there is
    nothing to do. fsync: as `os.fsync`.
    """

    def __init__(self, directory: Path | None, fsync: Callable[[int], None] = os.fsync) -> None:
        self._directory = directory
        self._fsync = fsync
        self._lock = threading.Lock()
        self._tables: dict[str, _TableFlusher] = {}

    def flush(self, table: str) -> None:
        """Everything that was committed to the table before this call is on disk.

        Threads that commit at once share flushes. A file whose flush failed once fails every later one, since the
        kernel reports a lost write only once.

        Raises:
            StorageFull. Unavailable: the disk failed. Either way the commit may or may not be lost.
        """
        if self._directory is None:
            return
        with self._lock:
            flusher = self._tables.get(table)
            if flusher is None:
                flusher = self._tables[table] = _TableFlusher(table_directory(self._directory, table), self._fsync)
        try:
            flusher.flush()
        except OSError as error:
            raise translated(error, table) from error

    def forget(self, table: str) -> None:
        """The table was dropped."""
        with self._lock:
            self._tables.pop(table, None)


class _TableFlusher:
    """The flushes of one table, one after the other."""

    def __init__(self, root: Path, fsync: Callable[[int], None]) -> None:
        self._root = root
        self._fsync = fsync
        self._running = threading.Lock()
        self._begun = 0
        self._done = 0
        self._identity: tuple[int, int] | None = None
        self._flushed: dict[str, set[str]] = {}
        self._failed: set[Path] = set()

    def flush(self) -> None:
        """Take part in a flush that begins after this call, or run it."""
        enough = self._begun + 1
        with self._running:
            if self._done < enough:
                self._begun += 1
                self._flush_new()
                self._done = self._begun

    def _flush_new(self) -> None:
        try:
            status = self._root.stat()
        except FileNotFoundError:
            return  # dropped
        # Another directory than before: the table was dropped and made anew. Its own entries change a few times only.
        identity = (status.st_ino, status.st_mtime_ns)
        if identity != self._identity:
            self._flushed.clear()
        seen: dict[str, set[str]] = {}
        files: list[Path] = []
        folders: list[Path] = []
        # Versions are listed before what they need, and flushed after it.
        for folder, names, finished in _walk(self._root):
            seen[folder] = names
            new = names - self._flushed.get(folder, set())
            if new or folder not in self._flushed:
                folders.append(Path(folder))
            # Names of versions count down: no complete one is to follow a torn one.
            files.extend(Path(folder, name) for name in sorted(new & finished))
        for file in reversed(files):
            self._flush(file, os.O_RDONLY)
        for path in folders:
            self._flush(path, os.O_RDONLY | os.O_DIRECTORY)
        if identity != self._identity:
            for parent in (self._root.parent, self._root.parent.parent):
                self._flush(parent, os.O_RDONLY | os.O_DIRECTORY)
        self._flushed = seen
        self._identity = identity

    def _flush(self, path: Path, flags: int) -> None:
        if path in self._failed:
            raise OSError(errno.EIO, "a flush to disk failed earlier", path.name)
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # cleaned up, since no version that is kept needs it
        except PermissionError:
            if flags & os.O_DIRECTORY:
                return  # a parent that is not ours
            raise
        try:
            self._fsync(descriptor)
        except OSError as error:
            if flags & os.O_DIRECTORY and error.errno in _NO_DIRECTORY_FLUSH:
                return  # this file system keeps its directories itself
            self._failed.add(path)
            raise OSError(error.errno, os.strerror(error.errno or errno.EIO), path.name) from error
        finally:
            os.close(descriptor)


def _walk(root: Path) -> Iterator[tuple[str, set[str], set[str]]]:
    """Each folder with the names in it, and with those that are files; the folder of the versions comes first.

    Files that LanceDB is still writing have other names and are left out.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for folder, folders, files in os.walk(root, onerror=refuse):
        folders.sort(key=lambda name: name != VERSIONS)
        finished = {name for name in files if not (name.startswith(".") or "#" in name or name == HINT)}
        yield folder, finished.union(folders), finished


def table_directory(directory: Path, table: str) -> Path:
    """Where LanceDB keeps the files of a table."""
    return directory / f"{table}.lance"


def set_aside_torn_versions(root: Path) -> None:
    """Rename the newest versions of a table that a machine's stop left incomplete, down to a complete one.

    Does nothing to a table without a complete version. root: directory of the table; an absent one is no error.
    """
    versions = root / VERSIONS
    try:
        if not _torn(versions)[0]:
            return
        folder = os.open(versions, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        # Without the lock, what another process has committed since under the same name would be set aside.
        fcntl.flock(folder, fcntl.LOCK_EX)
        torn, whole = _torn(versions)
        if whole is None:
            return
        for manifest in torn:
            manifest.rename(f"{manifest}{TORN}")
            log.error(
                "vector table %s: version %d is incomplete, as after a machine stopped during a commit that nobody was "
                "told of; back to version %d; the file is kept with the ending %s",
                root.stem,
                _number(manifest),
                _number(whole),
                TORN,
            )
    finally:
        os.close(folder)


def _torn(versions: Path) -> tuple[list[Path], Path | None]:
    """The incomplete versions that are newer than the newest complete one, newest first, and that one."""
    torn: list[Path] = []
    # Names count down from 2^64 - 1, so the newest comes first.
    for manifest in sorted(path for path in versions.iterdir() if _MANIFEST.fullmatch(path.name)):
        if _is_whole(manifest):
            return torn, manifest
        torn.append(manifest)
    return torn, None


def _is_whole(manifest: Path) -> bool:
    """Whether the file ends in a footer whose offset leads to a message that ends where the footer begins."""
    content = manifest.read_bytes()
    if len(content) < _FOOTER.size:
        return False
    end = len(content) - _FOOTER.size
    start, _, _, magic = _FOOTER.unpack_from(content, end)
    if magic != b"LANC" or not 0 <= start <= end - 4:
        return False
    size = int.from_bytes(content[start : start + 4], "little")
    return bool(start + 4 + size == end)


def _number(manifest: Path) -> int:
    return 2**64 - 1 - int(manifest.stem)
