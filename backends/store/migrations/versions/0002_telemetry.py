"""Traces, spans, log lines and metrics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _seq() -> sa.Column[int]:
    return sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), nullable=False)


def _attributes() -> sa.Column[object]:
    return sa.Column("attributes", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "traces",
        _seq(),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("trace_id", sa.Text, nullable=False),
        sa.Column("root_span_id", sa.Text, comment="null until the start of a span has arrived"),
        sa.Column("root_has_parent", sa.Boolean, nullable=False),
        sa.Column("start_time", sa.BigInteger),
        sa.Column("end_time", sa.BigInteger),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_traces"),
        sa.UniqueConstraint("owner", "trace_id", name="uq_traces_owner_trace_id"),
        comment="what is known of the root of each trace",
    )
    op.create_index("ix_traces_owner_start_time", "traces", ["owner", "start_time"])
    op.create_table(
        "spans",
        _seq(),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("trace_id", sa.Text, nullable=False),
        sa.Column("span_id", sa.Text, nullable=False),
        sa.Column("parent_span_id", sa.Text),
        sa.Column("name", sa.Text, comment="null until its start has arrived"),
        sa.Column("start_time", sa.BigInteger),
        sa.Column("end_time", sa.BigInteger),
        sa.Column("status", sa.Text),
        _attributes(),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_spans"),
        sa.UniqueConstraint("owner", "trace_id", "span_id", name="uq_spans_owner_trace_id_span_id"),
    )
    op.create_index("ix_spans_owner_span_id", "spans", ["owner", "span_id"])
    op.create_table(
        "span_logs",
        _seq(),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("trace_id", sa.Text, nullable=False),
        sa.Column("span_id", sa.Text, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        _attributes(),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_span_logs"),
    )
    op.create_index("ix_span_logs_owner_trace_id", "span_logs", ["owner", "trace_id"])
    op.create_table(
        "metrics",
        _seq(),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("trace_id", sa.Text, nullable=False),
        sa.Column("span_id", sa.Text, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        _attributes(),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_metrics"),
    )
    op.create_index("ix_metrics_owner_metric", "metrics", ["owner", "metric"])
    for table in ("traces", "spans", "span_logs", "metrics"):
        op.create_index(f"ix_{table}_expires_at", table, ["expires_at"])
