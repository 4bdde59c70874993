"""The three forms of the resource store, each with a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.memory.resources import MemoryResourceStore
from backends.ports import ResourceStore
from backends.store import SqlResourceStore, open_database
from tests.backends.postgres import PostgresServer


@dataclass
class Clock:
    """A clock that only the test moves."""

    now: datetime = field(default_factory=lambda: datetime(2026, 1, 1, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def pass_time(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[ResourceStore]:
    """Every form of the port."""
    if request.param == "memory":
        yield MemoryResourceStore(clock)
    elif request.param == "sqlite":
        sqlite = SqlResourceStore(open_database(f"sqlite:///{tmp_path / 'state.db'}"), clock)
        yield sqlite
        sqlite.close()
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        with server.database() as url:
            sql = SqlResourceStore(open_database(url), clock)
            yield sql
            sql.close()
