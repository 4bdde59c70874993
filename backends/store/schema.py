"""The tables as they are at the newest revision. Every owned row has an `owner`; `""` is shared by all callers."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

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

# Telemetry. Times are microseconds since the Unix epoch: exact and ordered the same way in every database.
Attributes = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

traces = sa.Table(
    "traces",
    metadata,
    sa.Column("seq", Sequence, sa.Identity(), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("trace_id", sa.Text, nullable=False),
    sa.Column("root_span_id", sa.Text, comment="null until the start of a span has arrived"),
    sa.Column("root_has_parent", sa.Boolean, nullable=False),
    sa.Column("start_time", sa.BigInteger),
    sa.Column("end_time", sa.BigInteger),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("owner", "trace_id"),
    sa.Index("ix_traces_owner_start_time", "owner", "start_time"),
    sa.Index("ix_traces_expires_at", "expires_at"),
    comment="what is known of the root of each trace",
)

spans = sa.Table(
    "spans",
    metadata,
    sa.Column("seq", Sequence, sa.Identity(), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("trace_id", sa.Text, nullable=False),
    sa.Column("span_id", sa.Text, nullable=False),
    sa.Column("parent_span_id", sa.Text),
    sa.Column("name", sa.Text, comment="null until its start has arrived"),
    sa.Column("start_time", sa.BigInteger),
    sa.Column("end_time", sa.BigInteger),
    sa.Column("status", sa.Text),
    sa.Column("attributes", Attributes, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("owner", "trace_id", "span_id"),
    sa.Index("ix_spans_owner_span_id", "owner", "span_id"),
    sa.Index("ix_spans_expires_at", "expires_at"),
)

span_logs = sa.Table(
    "span_logs",
    metadata,
    sa.Column("seq", Sequence, sa.Identity(), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("trace_id", sa.Text, nullable=False),
    sa.Column("span_id", sa.Text, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("attributes", Attributes, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Index("ix_span_logs_owner_trace_id", "owner", "trace_id"),
    sa.Index("ix_span_logs_expires_at", "expires_at"),
)

metrics = sa.Table(
    "metrics",
    metadata,
    sa.Column("seq", Sequence, sa.Identity(), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("trace_id", sa.Text, nullable=False),
    sa.Column("span_id", sa.Text, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("attributes", Attributes, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Index("ix_metrics_owner_metric", "owner", "metric"),
    sa.Index("ix_metrics_expires_at", "expires_at"),
)

# Agents. What a turn holds is one JSON value, for nothing asks for parts of it; steps are rows of their own because
# they come one by one. Times as in telemetry.


def _of(column: str, target: str) -> sa.ForeignKey:
    return sa.ForeignKey(f"{target}.{column}", ondelete="CASCADE")


agents = sa.Table(
    "agents",
    metadata,
    sa.Column("seq", Sequence, sa.Identity(), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("agent_id", sa.Text, nullable=False),
    sa.Column("config", sa.JSON, nullable=False),
    sa.UniqueConstraint("agent_id"),
)

agent_sessions = sa.Table(
    "agent_sessions",
    metadata,
    sa.Column("seq", Sequence, sa.Identity(), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("session_id", sa.Text, nullable=False),
    sa.Column("agent_id", sa.Text, _of("agent_id", "agents"), nullable=False),
    sa.Column("name", sa.JSON, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, comment="null for a session that is kept"),
    sa.Column("turn_id", sa.Text, comment="the turn that runs, as long as its lease does"),
    sa.Column("lease_until", sa.BigInteger),
    sa.UniqueConstraint("session_id"),
    sa.Index("ix_agent_sessions_agent_id", "agent_id"),
    sa.Index("ix_agent_sessions_expires_at", "expires_at"),
    sa.Index("ix_agent_sessions_turn_id", "turn_id"),
)

agent_turns = sa.Table(
    "agent_turns",
    metadata,
    sa.Column("seq", Sequence, sa.Identity(), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("turn_id", sa.Text, nullable=False),
    sa.Column("session_id", sa.Text, _of("session_id", "agent_sessions"), nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("completed_at", sa.BigInteger, comment="null while it runs"),
    sa.Column("body", sa.JSON, nullable=False),
    sa.UniqueConstraint("turn_id"),
    sa.Index("ix_agent_turns_session_id", "session_id"),
)

agent_steps = sa.Table(
    "agent_steps",
    metadata,
    sa.Column("seq", Sequence, sa.Identity(), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("turn_id", sa.Text, _of("turn_id", "agent_turns"), nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Index("ix_agent_steps_turn_id", "turn_id"),
)

agent_files = sa.Table(
    "agent_files",
    metadata,
    sa.Column("seq", Sequence, sa.Identity(), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("session_id", sa.Text, _of("session_id", "agent_sessions"), nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("mime_type", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("session_id", "purpose", "name"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("seq", Sequence, sa.Identity(), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("job_id", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("claimant", sa.Text, comment="who works on it; null when nobody does"),
    sa.Column("heartbeats", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("progress", sa.JSON, nullable=False),
    sa.Column("result", sa.JSON(none_as_null=True)),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("started_at", sa.DateTime(timezone=True)),
    sa.Column("finished_at", sa.DateTime(timezone=True)),
    sa.UniqueConstraint("kind", "owner", "job_id"),
    sa.UniqueConstraint("claimant"),
    sa.Index("ix_jobs_state", "state"),
)

job_parts = sa.Table(
    "job_parts",
    metadata,
    sa.Column("job", Sequence, sa.ForeignKey("jobs.seq", ondelete="CASCADE"), nullable=False),
    sa.Column("part", sa.Integer, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.PrimaryKeyConstraint("job", "part"),
    comment="what a job has finished so far, for its next attempt and its result",
)
