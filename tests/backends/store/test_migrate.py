"""Schema versions (fault 28): upgrades are whole, run once, and a newer database is left alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from backends.context import CallContext
from backends.errors import Unavailable
from backends.ports import Resource
from backends.store import Database, SqlResourceStore, check, migrate, open_database, upgrade
from backends.store.engine import PoolSettings
from backends.store.schema import metadata
from tests.backends.postgres import PostgresServer
from tests.backends.processes import run_at_once

NEWEST = "0004"
KEPT = Resource("model", "kept", "p", "q")


@pytest.fixture
def next_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The release after this one: a revision more, which adds a table. Returns the file of that revision."""
    copy = tmp_path / "migrations"
    shutil.copytree(migrate._MIGRATIONS, copy)
    revision = copy / "versions" / "next.py"
    revision.write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = 'next'\ndown_revision = {NEWEST!r}\nbranch_labels = depends_on = None\n"
        "def upgrade():\n    op.create_table('added', sa.Column('x', sa.Integer))\n"
    )
    monkeypatch.setattr(migrate, "_MIGRATIONS", copy)
    return revision


def tables(url: str) -> set[str]:
    database = Database(url)
    with database.read() as connection:
        found = set(sa.inspect(connection).get_table_names())
    database.close()
    return found


def test_the_revisions_make_exactly_the_tables_of_the_schema(database_url: str) -> None:
    upgrade(database_url)
    database = Database(database_url)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.close()


def test_an_empty_database_is_found_empty_and_current_after_its_upgrade(database_url: str) -> None:
    assert (check(database_url).status, check(database_url).found) == ("empty", None)
    assert upgrade(database_url).status == "empty"
    assert (check(database_url).status, check(database_url).found) == ("current", NEWEST)
    assert upgrade(database_url).status == "current"


def test_opening_gives_an_empty_database_its_tables(database_url: str) -> None:
    open_database(database_url).close()
    assert {"resources", "unclaimed_storage", "alembic_version"} <= tables(database_url)


def upgrade_and_write(url: str, number: int) -> None:
    """Runs in another process."""
    store = SqlResourceStore(open_database(url))
    store.put(CallContext(request_id="r"), Resource("model", f"m{number}", "p", "q"))
    store.close()


def test_many_processes_may_open_a_fresh_database_at_once(database_url: str, context: CallContext) -> None:
    assert run_at_once(upgrade_and_write, [(database_url, number) for number in range(6)]) == [0] * 6
    store = SqlResourceStore(open_database(database_url))
    assert {found.identifier for found in store.list(context, "model")} == {f"m{number}" for number in range(6)}
    store.close()


def test_a_database_of_a_newer_release_is_refused_with_both_revisions_and_left_alone(
    database_url: str, next_release: Path, monkeypatch: pytest.MonkeyPatch, context: CallContext
) -> None:
    newer = SqlResourceStore(open_database(database_url))
    newer.put(context, KEPT)
    newer.close()
    monkeypatch.undo()
    assert check(database_url).status == "ahead"
    for action in (open_database, upgrade):
        with pytest.raises(Unavailable, match=f"at revision next, this release knows revisions up to {NEWEST}"):
            action(database_url)
    monkeypatch.setattr(migrate, "_MIGRATIONS", next_release.parent.parent)
    newer = SqlResourceStore(open_database(database_url))
    assert newer.list(context, "model") == [KEPT]
    newer.close()


def test_a_database_that_is_refused_or_cannot_be_upgraded_is_not_left_open(
    tmp_path: Path, next_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Database] = []
    closed: list[Database] = []

    class Recorded(Database):
        def __init__(self, url: str, pool: PoolSettings | None = None) -> None:
            super().__init__(url, pool)
            opened.append(self)

        def close(self) -> None:
            super().close()
            closed.append(self)

    monkeypatch.setattr(migrate, "Database", Recorded)
    url = f"sqlite:///{tmp_path / 'state.db'}"
    working = next_release.read_text()
    next_release.write_text(working + "    raise RuntimeError('half-way')\n")
    with pytest.raises(RuntimeError, match="half-way"):
        open_database(url)
    assert opened and set(closed) == set(opened)
    next_release.write_text(working)
    open_database(url).close()
    monkeypatch.undo()
    monkeypatch.setattr(migrate, "Database", Recorded)
    with pytest.raises(Unavailable, match="at revision next"):
        open_database(url)
    assert set(closed) == set(opened)


def test_a_database_of_an_older_release_is_upgraded_with_its_rows(
    tmp_path: Path, context: CallContext, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    older = SqlResourceStore(open_database(url))
    older.put(context, KEPT)
    older.close()
    request.getfixturevalue("next_release")
    assert check(url).status == "behind"
    newer = SqlResourceStore(open_database(url))
    assert newer.list(context, "model") == [KEPT]
    newer.close()
    assert "added" in tables(url)


def test_an_older_postgres_waits_for_the_operator_since_older_servers_may_use_it(
    postgres: PostgresServer, request: pytest.FixtureRequest
) -> None:
    with postgres.database() as url:
        upgrade(url)
        request.getfixturevalue("next_release")
        with pytest.raises(
            Unavailable, match=f"revision {NEWEST}, this release needs next; run `onnxstack db upgrade`"
        ):
            open_database(url)
        assert "added" not in tables(url)
        assert upgrade(url).status == "behind"
        open_database(url).close()
        assert "added" in tables(url)


def test_an_upgrade_that_fails_half_way_leaves_the_database_as_it_was(database_url: str, next_release: Path) -> None:
    working = next_release.read_text()
    next_release.write_text(working + "    raise RuntimeError('half-way')\n")
    with pytest.raises(RuntimeError, match="half-way"):
        upgrade(database_url)
    assert check(database_url).status == "empty"
    assert tables(database_url) == set()
    next_release.write_text(working)
    upgrade(database_url)
    assert "added" in tables(database_url)
