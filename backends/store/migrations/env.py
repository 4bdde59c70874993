"""Alembic's entry: runs the revisions on the connection, and inside the transaction, of `backends/store/migrate.py`."""

from __future__ import annotations

from alembic import context

from backends.store.schema import metadata

connection = context.config.attributes["connection"]
# SQLite undoes schema changes like any other write as long as we begin the transaction ourselves, which engine.py does.
context.configure(
    connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True, compare_type=True
)
with context.begin_transaction():
    context.run_migrations()
