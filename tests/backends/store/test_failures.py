"""A database that is full, damaged, locked, read-only, out of connections or away (faults 7, 9 and 11)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from backends.context import CallContext
from backends.errors import Misconfigured, StorageFull, Unavailable
from backends.ports import Resource
from backends.store import Database, SqlResourceStore, check, open_database
from backends.store.engine import PoolSettings
from tests.backends.postgres import PostgresServer

SMALL = Resource("model", "small", "p", "q")
IMPATIENT = PoolSettings(size=1, overflow=0, wait_s=0.05)


def big(number: int) -> Resource:
    return Resource("model", f"big{number}", "p", "q", {"text": "x" * 20_000})


class Limit:
    """A pragma that every SQLite connection runs when it is taken from its pool."""

    pragma = ""

    def __call__(self, connection: object, *_: object) -> None:
        if self.pragma and isinstance(connection, sqlite3.Connection):
            connection.execute(self.pragma).close()


@pytest.fixture
def limited() -> Iterator[Limit]:
    limit = Limit()
    event.listen(sa.pool.Pool, "checkout", limit)
    yield limit
    event.remove(sa.pool.Pool, "checkout", limit)


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(sqlite_file: Path) -> Iterator[SqlResourceStore]:
    store = SqlResourceStore(open_database(f"sqlite:///{sqlite_file}"))
    yield store
    store.close()


def test_a_full_disk_is_said_so_leaves_nothing_half_written_and_is_survived(
    store: SqlResourceStore, context: CallContext, limited: Limit
) -> None:
    store.put(context, SMALL)
    limited.pragma = "PRAGMA max_page_count=12"
    with pytest.raises(StorageFull, match=r"has no room or is read-only \(.*state\.db") as refused:
        store.put(context, *(big(number) for number in range(3)))
    assert refused.value.message == "the database has no room or is read-only"
    assert store.list(context, "model") == [SMALL]
    limited.pragma = "PRAGMA max_page_count=1000000"
    store.put(context, big(0))
    assert store.list(context, "model") == [SMALL, big(0)]


def test_a_read_only_database_is_said_so_and_still_read(
    store: SqlResourceStore, context: CallContext, limited: Limit
) -> None:
    store.put(context, SMALL)
    limited.pragma = "PRAGMA query_only=1"
    with pytest.raises(StorageFull, match="read-only"):
        store.put(context, big(0))
    assert store.list(context, "model") == [SMALL]
    limited.pragma = "PRAGMA query_only=0"
    store.put(context, big(0))


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_refused_by_name(sqlite_file: Path, content: bytes) -> None:
    sqlite_file.write_bytes(content)
    with pytest.raises(Unavailable, match=r"is damaged or is no database \(.*state\.db") as refused:
        open_database(f"sqlite:///{sqlite_file}")
    assert refused.value.retry_after_s is None
    assert refused.value.message == "the database file is damaged or is no database"
    assert sqlite_file.read_bytes() == content


def test_a_database_with_damaged_pages_is_refused_by_name(sqlite_file: Path, context: CallContext) -> None:
    store = SqlResourceStore(open_database(f"sqlite:///{sqlite_file}"))
    store.put(context, *(big(number) for number in range(10)))
    store.close()
    content = bytearray(sqlite_file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    sqlite_file.write_bytes(content)
    with pytest.raises(Unavailable, match=r"is damaged or is no database \(.*state\.db"):
        open_database(f"sqlite:///{sqlite_file}")


def test_a_truncated_database_is_refused_by_name(sqlite_file: Path, context: CallContext) -> None:
    store = SqlResourceStore(open_database(f"sqlite:///{sqlite_file}"))
    store.put(context, *(big(number) for number in range(10)))
    store.close()
    sqlite_file.write_bytes(sqlite_file.read_bytes()[:8192])
    with pytest.raises(Unavailable, match=r"is damaged or is no database \(.*state\.db"):
        SqlResourceStore(open_database(f"sqlite:///{sqlite_file}")).list(context, "model")


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"cannot be read or written \(.*file/below/state\.db"):
        check(f"sqlite:///{tmp_path}/file/below/state.db")


def test_a_locked_database_asks_to_try_again(sqlite_file: Path, context: CallContext) -> None:
    open_database(f"sqlite:///{sqlite_file}").close()
    impatient = SqlResourceStore(Database(f"sqlite:///{sqlite_file}", IMPATIENT))
    holder = Database(f"sqlite:///{sqlite_file}")
    with holder.write():
        with pytest.raises(Unavailable, match="busy") as refused:
            impatient.put(context, SMALL)
        assert impatient.list(context, "model") == [], "readers never wait for a writer"
    assert refused.value.retry_after_s == 1.0
    impatient.put(context, SMALL)
    impatient.close()
    holder.close()


def test_an_exhausted_pool_asks_to_try_again(database_url: str) -> None:
    database = Database(database_url, IMPATIENT)
    with database.read(), pytest.raises(Unavailable, match="connections are in use") as refused:
        database.ping()
    assert refused.value.retry_after_s == 1.0
    database.ping()
    database.close()


def test_a_database_without_tables_says_which_command_makes_them(database_url: str, context: CallContext) -> None:
    store = SqlResourceStore(Database(database_url))
    with pytest.raises(Unavailable, match="onnxstack db upgrade"):
        store.list(context, "model")
    store.close()


def test_a_postgres_that_goes_away_and_comes_back_needs_no_restart(
    postgres: PostgresServer, context: CallContext
) -> None:
    with postgres.database() as url:
        store = SqlResourceStore(open_database(url))
        store.put(context, SMALL)
        postgres.stop()
        try:
            for _ in range(3):
                with pytest.raises(Unavailable, match="does not answer") as refused:
                    store.list(context, "model")
                assert refused.value.retry_after_s == 1.0
                assert refused.value.message == "the database does not answer; try again"
            with pytest.raises(Unavailable):
                store.ping()
        finally:
            postgres.start()
        store.ping()
        assert store.list(context, "model") == [SMALL]
        store.close()


def test_a_postgres_connection_that_is_cut_in_a_transaction_is_unavailable(
    postgres: PostgresServer, context: CallContext
) -> None:
    with postgres.database() as url:
        database = open_database(url)
        with pytest.raises(Unavailable, match="does not answer"), database.write() as connection:
            mine = connection.execute(sa.select(sa.func.pg_backend_pid())).scalar_one()
            postgres.execute(f"SELECT pg_terminate_backend({mine})")
            connection.execute(sa.select(1))
        database.ping()
        database.close()


@pytest.mark.parametrize("condition", ["disk_full", "read_only_sql_transaction"])
def test_a_postgres_without_room_is_said_so(postgres: PostgresServer, context: CallContext, condition: str) -> None:
    with postgres.database() as url:
        store = SqlResourceStore(open_database(url))
        name = url.rpartition("/")[2]
        postgres.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION USING ERRCODE = '{condition}'; END $$",
            name,
        )
        postgres.execute("CREATE TRIGGER t BEFORE INSERT ON resources EXECUTE FUNCTION refuse()", name)
        with pytest.raises(StorageFull, match="no room or is read-only"):
            store.put(context, SMALL)
        postgres.execute("DROP TRIGGER t ON resources", name)
        store.put(context, SMALL)
        assert store.list(context, "model") == [SMALL]
        store.close()


def test_no_failure_shows_the_password_of_the_database() -> None:
    with pytest.raises(Unavailable) as refused:
        check("postgresql://someone:hunter2@127.0.0.1:1/db")
    assert "127.0.0.1:1" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(Misconfigured) as misconfigured:
        Database("mysql://someone:hunter2@127.0.0.1/db")
    assert "hunter2" not in str(misconfigured.value)
    assert misconfigured.value.where == "database_url"


@pytest.mark.parametrize("url", ["", "state.db", "sqlite://", "sqlite:///:memory:", "oracle://host/db"])
def test_a_url_of_an_unknown_database_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"sqlite:////path/state\.db"):
        Database(url)
