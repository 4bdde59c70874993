"""Jobs in SQL. A claim, a heartbeat and every write of a claimant is one conditional UPDATE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from backends.context import CallContext
from backends.errors import Conflict
from backends.jobs.records import CANCELLED, FINAL, Job, JobKey, JobKind
from backends.ports import JsonObject
from backends.store.engine import Database
from backends.store.schema import job_parts, jobs

_TOPIC = 3
_PARTS = 20


class SqlJobStore:
    """JobStore on SQLite or PostgreSQL."""

    def __init__(self, database: Database, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._now = now

    def ping(self) -> None:
        self._database.ping()

    def close(self) -> None:
        self._database.close()

    def add(self, context: CallContext, job: Job) -> Job:
        with self._database.write() as connection:
            self._database.serialise(connection, _TOPIC)
            row = connection.execute(sa.select(jobs).where(_is(job.key))).one_or_none()
            if row is not None:
                there = _job(row)
                if (there.subject, there.request) != (job.subject, job.request):
                    raise Conflict(f"job {job.job_id!r} is there already, with another request")
                return there
            connection.execute(
                sa.insert(jobs).values(
                    kind=job.kind,
                    owner=job.owner,
                    job_id=job.job_id,
                    subject=job.subject,
                    principal=job.principal,
                    request=job.request,
                    state=job.state,
                    heartbeats=0,
                    attempt=0,
                    cancel_requested=False,
                    progress={},
                    reason="",
                    created_at=job.created_at,
                )
            )
            return job

    def get(self, context: CallContext, kind: JobKind, job_id: str) -> Job | None:
        with self._database.read() as connection:
            return _one(connection, _visible(context), jobs.c.kind == kind, jobs.c.job_id == job_id)

    def list(self, context: CallContext, kind: JobKind) -> list[Job]:
        query = sa.select(jobs).where(_visible(context), jobs.c.kind == kind).order_by(jobs.c.seq)
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(query)]

    def cancel(self, context: CallContext, kind: JobKind, job_id: str) -> Job | None:
        named = _is(JobKey(kind, context.owner, job_id))
        with self._database.write() as connection:
            connection.execute(sa.update(jobs).where(named, jobs.c.state.not_in(FINAL)).values(cancel_requested=True))
            self._end_unheld(connection, named)
            return _one(connection, named)

    def claim(self, claimant: str, kinds: Sequence[JobKind], silent: Mapping[JobKey, int]) -> Job | None:
        free: list[sa.ColumnElement[bool]] = [jobs.c.claimant.is_(None)]
        free += [sa.and_(_is(key), jobs.c.heartbeats == count) for key, count in silent.items()]
        query = sa.select(jobs).where(jobs.c.kind.in_(kinds), jobs.c.state.not_in(FINAL), sa.or_(*free))
        with self._database.write() as connection:
            self._database.serialise(connection, _TOPIC)
            row = connection.execute(query.order_by(jobs.c.seq).limit(1)).one_or_none()
            if row is None:
                return None
            values = {
                "claimant": claimant,
                "state": "in_progress",
                "attempt": row.attempt + 1,
                "heartbeats": row.heartbeats + 1,
                "started_at": row.started_at or self._now(),
            }
            connection.execute(sa.update(jobs).where(jobs.c.seq == row.seq).values(values))
            return _one(connection, jobs.c.seq == row.seq)

    def heartbeats(self, kinds: Sequence[JobKind]) -> dict[JobKey, int]:
        query = sa.select(jobs.c.kind, jobs.c.owner, jobs.c.job_id, jobs.c.heartbeats)
        held = query.where(jobs.c.kind.in_(kinds), jobs.c.state == "in_progress", jobs.c.claimant.is_not(None))
        with self._database.read() as connection:
            return {JobKey(row.kind, row.owner, row.job_id): row.heartbeats for row in connection.execute(held)}

    def claimed(self, claimant: str) -> Job | None:
        with self._database.read() as connection:
            return _one(connection, jobs.c.claimant == claimant)

    def beat(self, claimant: str) -> Job | None:
        with self._database.write() as connection:
            held = jobs.c.claimant == claimant
            connection.execute(sa.update(jobs).where(held).values(heartbeats=jobs.c.heartbeats + 1))
            return _one(connection, held)

    def progress(self, claimant: str, progress: JsonObject) -> None:
        with self._database.write() as connection:
            held = sa.update(jobs).where(jobs.c.claimant == claimant)
            if connection.execute(held.values(progress=progress)).rowcount != 1:
                raise _lost()

    def save_part(self, claimant: str, part: int, body: JsonObject) -> None:
        with self._database.write() as connection:
            # Held for the rest of the transaction: whoever takes the job over waits for it.
            held = sa.select(jobs.c.seq).where(jobs.c.claimant == claimant).with_for_update()
            seq = connection.execute(held).scalar_one_or_none()
            if seq is None:
                raise _lost()
            connection.execute(sa.delete(job_parts).where(job_parts.c.job == seq, job_parts.c.part == part))
            connection.execute(sa.insert(job_parts).values(job=seq, part=part, body=body))

    def parts(self, key: JobKey) -> Iterator[JsonObject]:
        query = sa.select(job_parts).join(jobs).where(_is(key)).order_by(job_parts.c.part).limit(_PARTS)
        last = -1
        while True:
            with self._database.read() as connection:
                found = connection.execute(query.where(job_parts.c.part > last)).all()
            yield from (row.body for row in found)
            if len(found) < _PARTS:
                return
            last = found[-1].part

    def finish(self, claimant: str, *, result: JsonObject | None = None, reason: str = "") -> bool:
        values: JsonObject = {
            "claimant": None,
            "state": "failed" if result is None else "completed",
            "result": result,
            "reason": reason,
        }
        with self._database.write() as connection:
            job = _one(connection, jobs.c.claimant == claimant)
            if job is None:
                return False
            # No job ends before it began, however the clock was set in between.
            values["finished_at"] = max(self._now(), job.started_at or job.created_at)
            held = sa.update(jobs).where(jobs.c.claimant == claimant)
            return connection.execute(held.values(values)).rowcount == 1

    def release(self, claimant: str, *, counts: bool = True) -> None:
        with self._database.write() as connection:
            held = sa.select(jobs.c.seq).where(jobs.c.claimant == claimant).with_for_update()
            seq = connection.execute(held).scalar_one_or_none()
            attempt = jobs.c.attempt if counts else jobs.c.attempt - 1
            connection.execute(sa.update(jobs).where(jobs.c.seq == seq).values(claimant=None, attempt=attempt))
            self._end_unheld(connection, jobs.c.seq == seq)

    def _end_unheld(self, connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
        """End the job if its client wished so and nobody holds it."""
        ending = sa.update(jobs).where(
            which, jobs.c.claimant.is_(None), jobs.c.cancel_requested, jobs.c.state.not_in(FINAL)
        )
        connection.execute(ending.values(state="failed", reason=CANCELLED, finished_at=self._now()))


def _lost() -> Conflict:
    return Conflict("another runner has taken this job over")


def _is(key: JobKey) -> sa.ColumnElement[bool]:
    return sa.and_(jobs.c.kind == key.kind, jobs.c.owner == key.owner, jobs.c.job_id == key.job_id)


def _visible(context: CallContext) -> sa.ColumnElement[bool]:
    return jobs.c.owner == context.owner


def _one(connection: sa.Connection, *which: sa.ColumnElement[bool]) -> Job | None:
    row = connection.execute(sa.select(jobs).where(*which)).one_or_none()
    return None if row is None else _job(row)


def _job(row: sa.Row[Any]) -> Job:
    return Job(
        kind=row.kind,
        job_id=row.job_id,
        subject=row.subject,
        owner=row.owner,
        principal=row.principal,
        request=row.request,
        created_at=_utc(row.created_at),
        state=row.state,
        attempt=row.attempt,
        cancel_requested=row.cancel_requested,
        progress=row.progress,
        result=row.result,
        reason=row.reason,
        started_at=_utc(row.started_at) if row.started_at else None,
        finished_at=_utc(row.finished_at) if row.finished_at else None,
    )


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)  # SQLite keeps no offset
