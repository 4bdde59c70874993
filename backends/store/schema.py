"""The tables as they are at the newest revision. Every owned row has an `owner`; `""` is shared by all callers."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    }
)

# SQLite gives a rowid alias, and with it ascending numbers, only to a column that is spelt INTEGER.
Sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

resources = sa.Table(
    "resources",
    metadata,
    sa.Column("seq", Sequence, sa.Identity(), primary_key=True, comment="order of first registration"),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("identifier", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("provider_id", sa.Text, nullable=False),
    sa.Column("provider_resource_id", sa.Text, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("storage_name", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("kind", "identifier", "owner"),
)

unclaimed_storage = sa.Table(
    "unclaimed_storage",
    metadata,
    sa.Column("storage_name", sa.Text, primary_key=True),
    sa.Column("due_at", sa.DateTime(timezone=True), nullable=False, comment="from when it may be collected"),
    comment="data in other stores that no resource names yet, or no longer",
)
