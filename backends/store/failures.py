"""What a database says when it fails, as errors of this project.

Codes: https://www.sqlite.org/rescode.html and https://www.postgresql.org/docs/current/errcodes-appendix.html.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from backends.errors import StackError, StorageFull, Unavailable

RETRY_AFTER_S = 1.0
_SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY}
_SQLITE_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SQLITE_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_SQLITE_IO = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
_POSTGRES_FULL = {"53100", "25006"}  # disk_full, read_only_sql_transaction
_POSTGRES_NO_TABLE = {"42P01", "42703"}  # undefined_table, undefined_column
# Classes: connection, invalid authorization, catalog name, rollback, resources, prerequisite state, operator, system
_POSTGRES_DOWN = {"08", "28", "3D", "40", "53", "55", "57", "58"}


@contextmanager
def translated(url: sa.URL) -> Iterator[None]:
    """Run the block; a failure of the database leaves it as an error that callers can act on.

    Raises:
        Unavailable: down, locked, out of connections, damaged or without its tables.
        StorageFull: no room or read-only.
    """
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("all database connections are in use; try again", retry_after_s=RETRY_AFTER_S) from error
    except DBAPIError as error:
        translation = _translate(error, url)
        if translation is None:
            raise
        raise translation from error


def _translate(error: DBAPIError, url: sa.URL) -> StackError | None:
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return _from_sqlite(cause, url)
    return _from_postgres(error, getattr(cause, "sqlstate", None), url)


def _from_sqlite(cause: sqlite3.Error, url: sa.URL) -> StackError | None:
    extended = getattr(cause, "sqlite_errorcode", 0)
    code = extended & 0xFF
    # Clients do not learn where the file lies.
    internal = f"{url.database}: {cause}"
    # The shared memory of the write-ahead log cannot grow on a full disk: sqlite reports that as an I/O error.
    if code in _SQLITE_FULL or extended in {sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE}:
        return StorageFull("the database has no room or is read-only", internal=internal)
    if code in _SQLITE_CORRUPT:
        return Unavailable("the database file is damaged or is no database", retry_after_s=None, internal=internal)
    if code in _SQLITE_BUSY:
        return Unavailable("the database is busy; try again", retry_after_s=RETRY_AFTER_S, internal=internal)
    if code in _SQLITE_IO:
        return Unavailable("the database cannot be read or written", retry_after_s=RETRY_AFTER_S, internal=internal)
    if "no such table" in str(cause) or "no such column" in str(cause):
        return _not_migrated(str(cause))
    return None


def _from_postgres(error: DBAPIError, state: str | None, url: sa.URL) -> StackError | None:
    if state in _POSTGRES_FULL:
        return StorageFull("the database has no room or is read-only")
    if state in _POSTGRES_NO_TABLE:
        return _not_migrated(str(error.orig).splitlines()[0])
    lost = error.connection_invalidated or (state is None and isinstance(error, sa.exc.OperationalError))
    if lost or (state is not None and state[:2] in _POSTGRES_DOWN):
        where = f"{url.host or 'local'}:{url.port or 5432}"
        return Unavailable("the database does not answer; try again", retry_after_s=RETRY_AFTER_S, internal=where)
    return None


def _not_migrated(detail: str) -> Unavailable:
    return Unavailable(
        f"the database lacks a table or column of this release ({detail}); run `onnxstack db upgrade`",
        retry_after_s=None,
    )
