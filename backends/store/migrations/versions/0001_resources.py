"""The registry of resources, and the storage that none of them names."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "resources",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(),
            nullable=False,
            comment="order of first registration",
        ),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("identifier", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("provider_id", sa.Text, nullable=False),
        sa.Column("provider_resource_id", sa.Text, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("storage_name", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_resources"),
        sa.UniqueConstraint("kind", "identifier", "owner", name="uq_resources_kind_identifier_owner"),
    )
    op.create_table(
        "unclaimed_storage",
        sa.Column("storage_name", sa.Text, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False, comment="from when it may be collected"),
        sa.PrimaryKeyConstraint("storage_name", name="pk_unclaimed_storage"),
        comment="data in other stores that no resource names yet, or no longer",
    )
