"""One process's connection to LanceDB: opened late, retried with bound, and its failures put into our words."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from backends.errors import NotFound, StackError, Unavailable
from backends.lance.durability import Flusher, set_aside_torn_versions, table_directory
from backends.lance.failures import RAW_ERRORS, is_conflict, is_missing, is_vanished, translated
from backends.vector_rows import check_table_name

if TYPE_CHECKING:
    from lancedb import Session
    from lancedb.db import AsyncConnection

T = TypeVar("T")
ATTEMPTS = 8
FIRST_WAIT_S = 0.01
OPEN_TABLES = 512
CLOSE_S = 5.0
_LIST_PAGE = 1000
INDEX_CACHE_BYTES = 64_000_000
METADATA_CACHE_BYTES = 32_000_000
"""LanceDB's own limit is 1 GB, and of a table that is dropped it keeps 25 KB until it is reached."""


class OpenTable(Protocol):
    """A table of one kind, used in the event loop that opened it. `ChunkTable` and `RowTable` are the kinds."""

    @classmethod
    async def open(cls, connection: AsyncConnection, name: str) -> Self: ...

    async def refresh(self) -> None:
        """See what any process committed before this call."""


TableT = TypeVar("TableT", bound=OpenTable)


def local_directory(location: str) -> Path | None:
    """The directory of a location on this machine, None for object storage."""
    if location.startswith("file://"):
        return Path(location.removeprefix("file://"))
    return None if "://" in location else Path(location)


class LanceDatabase(Generic[TableT]):
    """Tables of one kind by name, for any number of threads.

    kind: imports the class of the tables. Importing lancedb takes seconds, so the first use does it.
    fsync: flushes the file of a descriptor to disk, as `os.fsync`. noun: whose tables they are, for messages.
    index_cache_bytes: of indexes kept in memory.
    """

    def __init__(
        self,
        location: str,
        kind: Callable[[], type[TableT]],
        *,
        fsync: Callable[[int], None] = os.fsync,
        noun: str = "vector db",
        index_cache_bytes: int = INDEX_CACHE_BYTES,
    ) -> None:
        self.location = location
        self.directory = local_directory(location)
        self._flusher = Flusher(self.directory, fsync)
        self._lock = threading.Lock()
        self._session: _Session[TableT] | None = None
        self._kind = kind
        self._noun = noun
        self._index_cache_bytes = index_cache_bytes
        self._closed = False

    def run(self, name: str, operation: Callable[[TableT], Awaitable[T]]) -> T:
        """The operation's result on the table; repeated while other writers win or the table is being dropped.

        The operation must be safe to repeat after an error, as a single commit or a read is.

        Raises:
            NotFound: no such table. StorageFull. Unavailable: too many writers, damaged files, or closed.
        """
        check_table_name(name)
        return self._submit(lambda session: session.run(name, operation))

    def commit(self, name: str, operation: Callable[[TableT], Awaitable[T]]) -> T:
        """As `run`, for an operation that writes: what it committed is on disk on return.

        Raises as `run`, and as `Flusher.flush`.
        """
        done = self.run(name, operation)
        self._flusher.flush(name)
        return done

    def known(self, name: str) -> TableT | None:
        """The table if this process has it open: of it only what never changes may be asked."""
        session = self._session
        return session.tables.get(name) if session is not None and session.process == os.getpid() else None

    def make(self, name: str, operation: Callable[[AsyncConnection], Awaitable[None]]) -> None:
        """Make a table by the operation unless there is one; it is on disk on return. Raises as `run`."""
        check_table_name(name)
        self._submit(lambda session: session.make(name, operation))
        self._flusher.flush(name)

    def drop(self, name: str) -> None:
        """Remove the table and its files, if it is there."""
        check_table_name(name)
        self._submit(lambda session: session.drop(name))
        self._flusher.forget(name)

    def names(self) -> list[str]:
        """Names of all tables."""
        return self._submit(lambda session: session.names())

    def in_use(self) -> bool:
        """Whether there may be tables, told without LanceDB."""
        return self.directory is None or any(self.directory.glob("*.lance"))

    def load(self) -> None:
        """Import LanceDB now, so that no request waits for it."""
        self._submit(lambda session: session.connection())

    def check_open(self) -> None:
        """Raises Unavailable after `close`."""
        if self._closed:
            raise Unavailable("the vector index is closed", retry_after_s=None)

    def close(self) -> None:
        """End the calls that still run, as a kill would: what they did not commit is not there."""
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
        if session is not None and session.process == os.getpid():
            session.close()

    def _submit(self, call: Callable[[_Session[TableT]], Coroutine[Any, Any, T]]) -> T:
        with self._lock:
            self.check_open()
            if self._session is None or self._session.process != os.getpid():
                self._session = _Session(self.location, self._noun, _imported(self._kind), self._index_cache_bytes)
            session = self._session
            pending = asyncio.run_coroutine_threadsafe(call(session), session.loop)
        try:
            return pending.result()
        except (asyncio.CancelledError, concurrent.futures.CancelledError) as error:
            raise Unavailable("the vector index was closed during the call", retry_after_s=None) from error
        except BaseException:
            pending.cancel()
            raise


class _Session(Generic[TableT]):
    """One process's event loop, connection and open tables; a fork makes its own."""

    def __init__(self, location: str, noun: str, kind: type[TableT], index_cache_bytes: int) -> None:
        self.process = os.getpid()
        self.cache: Session | None = None
        self.loop = asyncio.new_event_loop()
        self.tables: dict[str, TableT] = {}
        self._location = location
        self._directory = local_directory(location)
        self._noun = noun
        self._kind = kind
        self._index_cache_bytes = index_cache_bytes
        self._connection: AsyncConnection | None = None
        self._thread = threading.Thread(target=self.loop.run_forever, name="lance", daemon=True)
        self._thread.start()

    async def run(self, name: str, operation: Callable[[TableT], Awaitable[T]]) -> T:
        async def attempt() -> T:
            known = self.tables.get(name)
            if known is not None:
                await known.refresh()
            return await operation(known or await self._open(name))

        return await self._guarded(name, attempt)

    async def make(self, name: str, operation: Callable[[AsyncConnection], Awaitable[None]]) -> None:
        async def attempt() -> None:
            try:
                await operation(await self.connection())
            except ValueError as error:
                if not is_conflict(error):
                    raise
            await self._open(name)

        await self._guarded(name, attempt, table_must_exist=False)

    async def drop(self, name: str) -> None:
        async def attempt() -> None:
            try:
                await (await self.connection()).drop_table(name)
            except ValueError as error:
                if not is_missing(error):
                    raise

        self.tables.pop(name, None)
        await self._guarded(name, attempt, table_must_exist=False)
        self.tables.pop(name, None)

    async def names(self) -> list[str]:
        async def attempt() -> list[str]:
            connection, found, token = await self.connection(), [], None
            while True:
                page = await connection.list_tables(page_token=token, limit=_LIST_PAGE)
                found.extend(page.tables)
                token = page.page_token
                if not token:
                    return found

        return await self._guarded("*", attempt, table_must_exist=False)

    async def connection(self) -> AsyncConnection:
        if self._connection is None:
            import lancedb

            self.cache = lancedb.Session(self._index_cache_bytes, METADATA_CACHE_BYTES)
            self._connection = await lancedb.connect_async(self._location, session=self.cache)
        return self._connection

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self.loop)
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self.loop.close()

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self.tables.clear()
        if self._connection is not None:
            self._connection.close()  # type: ignore[no-untyped-call]
        self.loop.stop()

    async def _open(self, name: str) -> TableT:
        found = self.tables.get(name)
        if found is None:
            if self._directory is not None:
                set_aside_torn_versions(table_directory(self._directory, name))
            found = await self._kind.open(await self.connection(), name)
            while len(self.tables) >= OPEN_TABLES:
                self.tables.pop(next(iter(self.tables)))
            self.tables[name] = found
        return found

    async def _guarded(self, name: str, attempt: Callable[[], Awaitable[T]], *, table_must_exist: bool = True) -> T:
        wait_s = FIRST_WAIT_S
        for left in reversed(range(ATTEMPTS)):
            try:
                return await attempt()
            except (StackError, asyncio.CancelledError):
                raise
            except BaseException as error:
                # A panic of the Rust code derives from BaseException.
                if not isinstance(error, RAW_ERRORS) and type(error).__name__ != "PanicException":
                    raise
                self.tables.pop(name, None)
                if table_must_exist and not await self._exists(name):
                    raise NotFound(f"the {self._noun}'s table does not exist", internal=name) from error
                # A table that is being made and is not there was dropped since by somebody else: it is made again.
                again = is_conflict(error) or is_vanished(error) or (not table_must_exist and is_missing(error))
                if not left or not again:
                    raise translated(error, name) from error
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.5))
            wait_s *= 2
        raise AssertionError("the last attempt returns or raises")

    async def _exists(self, name: str) -> bool:
        try:
            await self._kind.open(await self.connection(), name)
        except RAW_ERRORS as error:
            return not is_missing(error)
        return True


def _imported(kind: Callable[[], type[TableT]]) -> type[TableT]:
    # LanceDB's Rust part logs to stderr by itself; what fails reaches us as an exception anyway.
    os.environ.setdefault("LANCEDB_LOG", "error")
    os.environ.setdefault("LANCE_INCLUDE_VECTOR_CENTROIDS", "false")
    return kind()
