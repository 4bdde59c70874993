"""The three forms of the telemetry store, each with a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.memory.telemetry import MemoryTelemetryStore
from backends.ports import TelemetryStore
from backends.store import SqlTelemetryStore, open_database
from tests.backends.postgres import PostgresServer
from tests.backends.store.conftest import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[TelemetryStore]:
    """Every form of the port."""
    if request.param == "memory":
        yield MemoryTelemetryStore(clock)
    elif request.param == "sqlite":
        sqlite = SqlTelemetryStore(open_database(f"sqlite:///{tmp_path / 'state.db'}"), clock)
        yield sqlite
        sqlite.close()
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        with server.database() as url:
            sql = SqlTelemetryStore(open_database(url), clock)
            yield sql
            sql.close()
