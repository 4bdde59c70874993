"""Every form of the job store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.memory.jobs import MemoryJobStore
from backends.ports import JobStore
from backends.store import SqlJobStore, open_database
from tests.backends.postgres import PostgresServer


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    if request.param == "memory":
        yield MemoryJobStore()
    elif request.param == "sqlite":
        sqlite = SqlJobStore(open_database(f"sqlite:///{tmp_path / 'state.db'}"))
        yield sqlite
        sqlite.close()
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        with server.database() as url:
            sql = SqlJobStore(open_database(url))
            yield sql
            sql.close()
