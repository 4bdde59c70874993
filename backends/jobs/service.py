"""Jobs as the APIs that have them see them: submit, look at, cancel."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from backends.context import CallContext
from backends.errors import NotFound
from backends.jobs.records import Job, JobKind
from backends.jobs.runner import Runner
from backends.ports import JobStore, JsonObject


class Jobs:
    """The jobs of all kinds."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def run_here(self, runner: Runner) -> None:
        """Work on jobs in a thread of this process until `close`."""
        self._thread = threading.Thread(target=runner.run, args=(self._stop,), name="jobs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop working on jobs here, if this process does, and release the store."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.store.close()

    def submit(
        self, context: CallContext, kind: JobKind, subject: str, request: JsonObject, job_id: str | None = None
    ) -> Job:
        """Schedule a job; durable on return. job_id: None makes one up.

        Raises:
            Conflict: the id belongs to another request.
        """
        job = Job(
            kind=kind,
            job_id=job_id or str(uuid.uuid4()),
            subject=subject,
            owner=context.owner,
            principal=context.principal,
            request=request,
            created_at=datetime.now(UTC),
        )
        return self.store.add(context, job)

    def get(self, context: CallContext, kind: JobKind, job_id: str) -> Job | None:
        """The job, or None."""
        return self.store.get(context, kind, job_id)

    def list(self, context: CallContext, kind: JobKind) -> list[Job]:
        """All jobs of the kind, oldest first."""
        return self.store.list(context, kind)

    def cancel(self, context: CallContext, kind: JobKind, job_id: str, *, where: str) -> Job:
        """End the job as failed, soon; one that has ended stays as it is. Raises NotFound."""
        job = self.store.cancel(context, kind, job_id)
        if job is None:
            raise NotFound(f"job {job_id!r} not found", where=where)
        return job

    def parts(self, job: Job) -> Iterator[JsonObject]:
        """What the job has saved so far, in order."""
        return self.store.parts(job.key)
