"""Jobs in memory: for tests and for servers that need not remember."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from backends.context import CallContext
from backends.errors import Conflict
from backends.jobs.records import CANCELLED, FINAL, Job, JobKey, JobKind
from backends.ports import JsonObject


@dataclass
class _Row:
    job: Job
    claimant: str | None = None
    heartbeats: int = 0
    parts: dict[int, JsonObject] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.job.state in FINAL


class MemoryJobStore:
    """JobStore in one process; gone when it ends."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._rows: dict[JobKey, _Row] = {}

    def ping(self) -> None:
        return

    def close(self) -> None:
        return

    def add(self, context: CallContext, job: Job) -> Job:
        with self._lock:
            row = self._rows.setdefault(job.key, _Row(copy.deepcopy(job)))
            if (row.job.subject, row.job.request) != (job.subject, job.request):
                raise Conflict(f"job {job.job_id!r} is there already, with another request")
            return copy.deepcopy(row.job)

    def get(self, context: CallContext, kind: JobKind, job_id: str) -> Job | None:
        with self._lock:
            row = self._rows.get(JobKey(kind, context.owner, job_id))
            return None if row is None else copy.deepcopy(row.job)

    def list(self, context: CallContext, kind: JobKind) -> list[Job]:
        with self._lock:
            found = [row.job for row in self._rows.values() if (row.job.kind, row.job.owner) == (kind, context.owner)]
            return copy.deepcopy(found)

    def cancel(self, context: CallContext, kind: JobKind, job_id: str) -> Job | None:
        with self._lock:
            row = self._rows.get(JobKey(kind, context.owner, job_id))
            if row is None:
                return None
            if not row.ended:
                row.job = replace(row.job, cancel_requested=True)
                self._end_unheld(row)
            return copy.deepcopy(row.job)

    def claim(self, claimant: str, kinds: Sequence[JobKind], silent: Mapping[JobKey, int]) -> Job | None:
        with self._lock:
            for key, row in self._rows.items():
                free = row.claimant is None or silent.get(key) == row.heartbeats
                if key.kind in kinds and free and not row.ended:
                    row.claimant = claimant
                    row.heartbeats += 1
                    row.job = replace(
                        row.job,
                        state="in_progress",
                        attempt=row.job.attempt + 1,
                        started_at=row.job.started_at or self._now(),
                    )
                    return copy.deepcopy(row.job)
        return None

    def heartbeats(self, kinds: Sequence[JobKind]) -> dict[JobKey, int]:
        with self._lock:
            held = ((key, row) for key, row in self._rows.items() if row.claimant is not None)
            return {key: row.heartbeats for key, row in held if key.kind in kinds}

    def claimed(self, claimant: str) -> Job | None:
        with self._lock:
            row = self._held(claimant)
            return None if row is None else copy.deepcopy(row.job)

    def beat(self, claimant: str) -> Job | None:
        with self._lock:
            row = self._held(claimant)
            if row is None:
                return None
            row.heartbeats += 1
            return copy.deepcopy(row.job)

    def progress(self, claimant: str, progress: JsonObject) -> None:
        with self._lock:
            row = self._held_or_lost(claimant)
            row.job = replace(row.job, progress=copy.deepcopy(progress))

    def save_part(self, claimant: str, part: int, body: JsonObject) -> None:
        with self._lock:
            self._held_or_lost(claimant).parts[part] = copy.deepcopy(body)

    def parts(self, key: JobKey) -> Iterator[JsonObject]:
        with self._lock:
            row = self._rows.get(key)
            found = [] if row is None else [copy.deepcopy(row.parts[part]) for part in sorted(row.parts)]
        yield from found

    def finish(self, claimant: str, *, result: JsonObject | None = None, reason: str = "") -> bool:
        with self._lock:
            row = self._held(claimant)
            if row is None:
                return False
            self._end(row, result=copy.deepcopy(result), reason=reason)
            return True

    def release(self, claimant: str, *, counts: bool = True) -> None:
        with self._lock:
            row = self._held(claimant)
            if row is not None:
                row.claimant = None
                row.job = replace(row.job, attempt=row.job.attempt if counts else row.job.attempt - 1)
                self._end_unheld(row)

    def _held(self, claimant: str) -> _Row | None:
        return next((row for row in self._rows.values() if row.claimant == claimant), None)

    def _held_or_lost(self, claimant: str) -> _Row:
        row = self._held(claimant)
        if row is None:
            raise Conflict("another runner has taken this job over")
        return row

    def _end_unheld(self, row: _Row) -> None:
        if row.claimant is None and row.job.cancel_requested and not row.ended:
            self._end(row, result=None, reason=CANCELLED)

    def _end(self, row: _Row, *, result: dict[str, Any] | None, reason: str) -> None:
        row.claimant = None
        row.job = replace(
            row.job,
            state="failed" if result is None else "completed",
            result=result,
            reason=reason,
            finished_at=self._now(),
        )
