"""A job as it is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

JobKind = Literal["eval", "post_training"]
JobState = Literal["scheduled", "in_progress", "completed", "failed"]
FINAL: tuple[JobState, ...] = ("completed", "failed")
CANCELLED = "cancelled"
"""The `reason` of a job that its client cancelled, which the contract's states call failed."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job. Its state only moves forward: scheduled, in_progress, then completed or failed.

    job_id: unique within its owner and kind. subject: what it is about, the id of an eval task or of a model. owner,
    principal: of the call that asked for it. request: what was asked, as JSON. attempt: how often it was begun.
    progress: what it last said of itself. result: of a completed job. reason: why a job failed, for its client.
    times: in UTC, None where it has not come so far.
    """

    kind: JobKind
    job_id: str
    subject: str
    owner: str
    principal: str
    request: dict[str, Any]
    created_at: datetime
    state: JobState = "scheduled"
    attempt: int = 0
    cancel_requested: bool = False
    progress: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    reason: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def key(self) -> JobKey:
        return JobKey(self.kind, self.owner, self.job_id)


@dataclass(frozen=True, slots=True)
class JobKey:
    """What names a job among those of all owners."""

    kind: JobKind
    owner: str
    job_id: str
