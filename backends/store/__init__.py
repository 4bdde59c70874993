"""The state layer: rows in SQLite or PostgreSQL through SQLAlchemy Core, schema versions through alembic."""

from __future__ import annotations

from backends.store.agents import SqlAgentStore
from backends.store.engine import Database
from backends.store.jobs import SqlJobStore
from backends.store.migrate import SchemaState, check, open_database, upgrade
from backends.store.resources import SqlResourceStore
from backends.store.telemetry import SqlTelemetryStore

__all__ = [
    "Database",
    "SchemaState",
    "SqlAgentStore",
    "SqlJobStore",
    "SqlResourceStore",
    "SqlTelemetryStore",
    "check",
    "open_database",
    "upgrade",
]
