"""One process's connection to LanceDB: opened late, retried with bound, and its failures put into our words."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from backends.errors import Conflict, NotFound, StackError, Unavailable
from backends.lance.failures import RAW_ERRORS, is_conflict, is_missing, is_vanished, translated
from backends.vector_rows import check_table_name

if TYPE_CHECKING:
    from lancedb.db import DBConnection

    from backends.lance.table import ChunkTable

T = TypeVar("T")
ATTEMPTS = 8
FIRST_WAIT_S = 0.01
OPEN_TABLES = 512
_LIST_PAGE = 1000


def local_directory(location: str) -> Path | None:
    """The directory of a location on this machine, None for object storage."""
    if location.startswith("file://"):
        return Path(location.removeprefix("file://"))
    return None if "://" in location else Path(location)


class LanceDatabase:
    """Tables by name, for any number of threads. Importing lancedb takes seconds, so the first use does it."""

    def __init__(self, location: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.location = location
        self.directory = local_directory(location)
        self._sleep = sleep
        self._lock = threading.Lock()
        self._process = 0
        self._connection: DBConnection | None = None
        self._tables: dict[str, ChunkTable] = {}
        self._closed = False

    def run(self, name: str, operation: Callable[[ChunkTable], T]) -> T:
        """The operation's result on the table; repeated while other writers win or the table is being dropped.

        The operation must be safe to repeat after an error, as a single commit or a read is.

        Raises:
            NotFound: no such table. StorageFull. Unavailable: too many writers, damaged files, or closed.
        """
        return self._guarded(name, lambda: operation(self._open(name)))

    def create(self, name: str, dimension: int) -> None:
        """Make an empty table unless there is one. Raises Conflict: there is one of another dimension."""

        def attempt() -> None:
            try:
                _table().create(self.connection(), name, dimension)
            except ValueError as error:
                if not is_conflict(error):
                    raise
            have = self._open(name).dimension
            if have != dimension:
                raise Conflict(f"vector table {name} exists with {have} dimensions, not {dimension}")

        self._guarded(name, attempt, table_must_exist=False)

    def drop(self, name: str) -> None:
        """Remove the table and its files, if it is there."""
        check_table_name(name)
        self.forget(name)

        def attempt() -> None:
            try:
                self.connection().drop_table(name)
            except ValueError as error:
                if not is_missing(error):
                    raise

        self._guarded(name, attempt, table_must_exist=False)
        self.forget(name)

    def names(self) -> list[str]:
        """Names of all tables."""
        found: list[str] = []
        token: str | None = None
        try:
            while True:
                page = self.connection().list_tables(page_token=token, limit=_LIST_PAGE)
                found.extend(page.tables)
                token = page.page_token
                if not token:
                    return found
        except RAW_ERRORS as error:
            raise translated(error, "*") from error

    def in_use(self) -> bool:
        """Whether there may be tables, told without LanceDB."""
        return self.directory is None or any(self.directory.glob("*.lance"))

    def forget(self, name: str) -> None:
        """Open the table anew at its next use."""
        with self._lock:
            self._tables.pop(name, None)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._tables.clear()
            self._connection = None

    def check_open(self) -> None:
        """Raises Unavailable after `close`."""
        if self._closed:
            raise Unavailable("the vector index is closed", retry_after_s=None)

    def connection(self) -> DBConnection:
        """This process's connection: a fork gets its own."""
        with self._lock:
            self.check_open()
            if self._connection is None or self._process != os.getpid():
                self._tables.clear()
                self._connection = self._connect()
                self._process = os.getpid()
            return self._connection

    def _connect(self) -> DBConnection:
        try:
            return _table().connect(self.location)
        except RAW_ERRORS as error:
            raise translated(error, "*") from error

    def _open(self, name: str) -> ChunkTable:
        connection = self.connection()
        with self._lock:
            found = self._tables.get(name)
        if found is None:
            check_table_name(name)
            found = _table().open(connection, name)
            with self._lock:
                while len(self._tables) >= OPEN_TABLES:
                    self._tables.pop(next(iter(self._tables)))
                self._tables[name] = found
        return found

    def _guarded(self, name: str, attempt: Callable[[], T], *, table_must_exist: bool = True) -> T:
        wait_s = FIRST_WAIT_S
        for left in reversed(range(ATTEMPTS)):
            try:
                return attempt()
            except StackError:
                raise
            except BaseException as error:
                # A panic of the Rust code derives from BaseException.
                if not isinstance(error, RAW_ERRORS) and type(error).__name__ != "PanicException":
                    raise
                self.forget(name)
                if table_must_exist and not self._exists(name):
                    raise NotFound(f"vector table {name} does not exist") from error
                if not left or not (is_conflict(error) or is_vanished(error)):
                    raise translated(error, name) from error
            self._sleep(wait_s * random.uniform(0.5, 1.5))
            wait_s *= 2
        raise AssertionError("the last attempt returns or raises")

    def _exists(self, name: str) -> bool:
        try:
            self.connection().open_table(name)
        except RAW_ERRORS as error:
            return not is_missing(error)
        return True


def _table() -> type[ChunkTable]:
    # LanceDB's Rust part logs to stderr by itself; what fails reaches us as an exception anyway.
    os.environ.setdefault("LANCEDB_LOG", "error")
    os.environ.setdefault("LANCE_INCLUDE_VECTOR_CENTROIDS", "false")
    from backends.lance.table import ChunkTable

    return ChunkTable
