"""Schema versions: which one a database has, whether this release can use it, and the way up.

Revisions live in `migrations/versions`; a released one never changes. Upgrading takes a lock, so that any number of
processes may start at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from backends.errors import Unavailable
from backends.store.engine import Database, PoolSettings

_MIGRATIONS = Path(__file__).parent / "migrations"
_TOPIC = 1
# An upgrade waits for the one that another process runs, and may itself take long on a large table.
_PATIENT = PoolSettings(wait_s=60.0, statement_s=3600.0)


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Where a database stands. `found`: its revision, None when it has no tables; `newest`: what this release needs."""

    status: Literal["empty", "current", "behind", "ahead"]
    found: str | None
    newest: str

    def __str__(self) -> str:
        match self.status:
            case "empty":
                return f"the database is empty; this release needs revision {self.newest}"
            case "current":
                return f"the database is at revision {self.newest}, which this release needs"
            case "behind":
                return (
                    f"the database is at revision {self.found}, this release needs {self.newest}; "
                    "run `onnxstack db upgrade`"
                )
            case "ahead":
                return (
                    f"the database is at revision {self.found}, this release knows revisions up to {self.newest}; "
                    "start a release that knows it, or restore a copy from before its upgrade"
                )


def check(url: str) -> SchemaState:
    """Where the database at `url` stands; changes nothing in it. Raises Unavailable."""
    database = Database(url)
    try:
        with database.read() as connection:
            return _state(connection)
    finally:
        database.close()


def upgrade(url: str) -> SchemaState:
    """Bring the database to the newest revision, whole or not at all, and return where it stood before.

    Raises:
        Unavailable: it does not answer, or a newer release has upgraded it; the message names both revisions.
        StorageFull.
    """
    database = Database(url, _PATIENT)
    try:
        with database.write() as connection:
            database.serialise(connection, _TOPIC)
            before = _state(connection)
            if before.status == "ahead":
                raise Unavailable(str(before), retry_after_s=None)
            if before.status != "current":
                config = _config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
            return before
    finally:
        database.close()


def open_database(url: str) -> Database:
    """A database that this release can use.

    An empty one gets its tables. An older SQLite file is upgraded, since it belongs to this server alone; an older
    PostgreSQL may be in use by servers of the older release, so it is refused until `onnxstack db upgrade` was run.

    Raises:
        Unavailable: it does not answer or has a revision that this release must not touch.
    """
    state = check(url)
    database = Database(url)
    try:
        if state.status == "empty" or (state.status == "behind" and database.dialect == "sqlite"):
            upgrade(url)
        elif state.status != "current":
            raise Unavailable(str(state), retry_after_s=None)
    except BaseException:
        database.close()
        raise
    return database


def _state(connection: sa.Connection) -> SchemaState:
    script = ScriptDirectory.from_config(_config())
    newest = str(script.get_current_head())
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None:
        return SchemaState("empty", None, newest)
    if found == newest:
        return SchemaState("current", found, newest)
    known = {revision.revision for revision in script.walk_revisions()}
    return SchemaState("behind" if found in known else "ahead", found, newest)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
