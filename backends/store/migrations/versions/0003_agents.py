"""Agents, their sessions, turns and steps, and the files of sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _seq() -> sa.Column[int]:
    return sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), nullable=False)


def _of(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [f"{target}.{column}"], name=f"fk_{table}_{column}_{target}", ondelete="CASCADE"
    )


def upgrade() -> None:
    op.create_table(
        "agents",
        _seq(),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_agents"),
        sa.UniqueConstraint("agent_id", name="uq_agents_agent_id"),
    )
    op.create_table(
        "agent_sessions",
        _seq(),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("name", sa.JSON, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, comment="null for a session that is kept"),
        sa.Column("turn_id", sa.Text, comment="the turn that runs, as long as its lease does"),
        sa.Column("lease_until", sa.BigInteger),
        sa.PrimaryKeyConstraint("seq", name="pk_agent_sessions"),
        sa.UniqueConstraint("session_id", name="uq_agent_sessions_session_id"),
        _of("agent_sessions", "agent_id", "agents"),
    )
    op.create_index("ix_agent_sessions_agent_id", "agent_sessions", ["agent_id"])
    op.create_index("ix_agent_sessions_expires_at", "agent_sessions", ["expires_at"])
    op.create_index("ix_agent_sessions_turn_id", "agent_sessions", ["turn_id"])
    op.create_table(
        "agent_turns",
        _seq(),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("turn_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("completed_at", sa.BigInteger, comment="null while it runs"),
        sa.Column("body", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_agent_turns"),
        sa.UniqueConstraint("turn_id", name="uq_agent_turns_turn_id"),
        _of("agent_turns", "session_id", "agent_sessions"),
    )
    op.create_index("ix_agent_turns_session_id", "agent_turns", ["session_id"])
    op.create_table(
        "agent_steps",
        _seq(),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("turn_id", sa.Text, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_agent_steps"),
        _of("agent_steps", "turn_id", "agent_turns"),
    )
    op.create_index("ix_agent_steps_turn_id", "agent_steps", ["turn_id"])
    op.create_table(
        "agent_files",
        _seq(),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("mime_type", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_agent_files"),
        sa.UniqueConstraint("session_id", "purpose", "name", name="uq_agent_files_session_id_purpose_name"),
        _of("agent_files", "session_id", "agent_sessions"),
    )
