"""One database, SQLite or PostgreSQL, safe to share between threads and to carry over a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from backends.errors import Misconfigured
from backends.store.failures import translated

_WRITE = "onnxstack_write"
_LOCK_SPACE = 0x6F6E6E78  # "onnx": keeps our advisory locks apart from those of other users of the database


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Limits of one process. All times in seconds.

    size, overflow: connections kept and made on top. wait_s: for a connection of the pool, a lock and a connect.
    statement_s: longest statement (PostgreSQL only).
    """

    size: int = 8
    overflow: int = 8
    wait_s: float = 5.0
    statement_s: float = 30.0


class Database:
    """Connections to one database. `read` and `write` are short transactions; nothing slow belongs inside them."""

    def __init__(self, url: str, pool: PoolSettings | None = None) -> None:
        """Connect to nothing yet: the first transaction of each process does.

        Raises:
            Misconfigured: the URL is none that this state layer can use; the message never shows its password.
        """
        self.url = _parse(url)
        self._pool = pool or PoolSettings()
        self._lock = threading.Lock()
        self._engine: sa.Engine | None = None
        self._process = 0

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.url.get_backend_name()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads: one consistent view, waits for no writer. Raises Unavailable."""
        with translated(self.url), self._connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that may write: committed and on the disk when the block ends, undone when it raises.

        SQLite takes the write lock at the start (BEGIN IMMEDIATE), so a transaction never fails half-way for a lock.

        Raises:
            Unavailable, StorageFull.
        """
        with translated(self.url), self._connect() as connection:
            writer = connection.execution_options(**{_WRITE: True})
            with writer.begin():
                yield writer

    def serialise(self, connection: sa.Connection, topic: int) -> None:
        """Hold back other writers of the same topic until this transaction ends; in SQLite every writer already is."""
        if self.dialect == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_SPACE, topic)))

    def ping(self) -> None:
        """Return if a query is answered. Raises Unavailable."""
        with self.read() as connection:
            connection.execute(sa.select(1))

    def close(self) -> None:
        """Close this process's connections."""
        with self._lock:
            if self._engine is not None and self._process == os.getpid():
                self._engine.dispose()
            self._engine = None

    @contextmanager
    def _connect(self) -> Iterator[sa.Connection]:
        with self._engine_of_process().connect() as connection:
            yield connection

    def _engine_of_process(self) -> sa.Engine:
        with self._lock:
            if self._engine is not None and self._process != os.getpid():
                # The parent's sockets and locks came over the fork: forget them without closing what is not ours.
                self._engine.dispose(close=False)
                self._engine = None
            if self._engine is None:
                self._engine = _engine(self.url, self._pool)
                self._process = os.getpid()
            return self._engine


def _parse(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError as error:
        raise Misconfigured(
            "database_url is not a URL such as sqlite:////path/state.db or postgresql://host/db", where="database_url"
        ) from error
    backend = url.drivername.partition("+")[0]
    if backend in {"postgres", "postgresql"}:
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database not in {None, "", ":memory:"}:
        return url.set(drivername="sqlite+pysqlite")
    raise Misconfigured(
        f"database_url has the scheme {url.drivername!r} or no file; "
        "known: sqlite:////path/state.db, postgresql://user@host/db, memory://",
        where="database_url",
    )


def _engine(url: sa.URL, pool: PoolSettings) -> sa.Engine:
    options: dict[str, Any] = {
        "pool_size": pool.size,
        "max_overflow": pool.overflow,
        "pool_timeout": pool.wait_s,
        "hide_parameters": True,  # parameters are users' data: they do not belong in logs
    }
    if url.get_backend_name() == "postgresql":
        return sa.create_engine(
            url,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": max(2, int(pool.wait_s)),
                "options": f"-c statement_timeout={_ms(pool.statement_s)} -c lock_timeout={_ms(pool.wait_s)}",
                "application_name": "onnxstack",
            },
            **options,
        )
    _create_private(Path(str(url.database)))
    engine = sa.create_engine(url, connect_args={"timeout": pool.wait_s}, **options)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _create_private(file: Path) -> None:
    """Make an absent database file readable by its owner only; sqlite gives its log files the same mode."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError:
        # It exists already, or cannot be made: then connecting says why.
        return


def _configure_sqlite(connection: Any, _record: object) -> None:
    # Python's sqlite3 would begin transactions by its own rules: we begin them ourselves, below.
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # an acknowledged row survives a power cut
        cursor.execute("PRAGMA foreign_keys=ON")
    finally:
        cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
