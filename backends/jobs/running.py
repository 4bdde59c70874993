"""A job as the code that works on it sees it."""

from __future__ import annotations

from collections.abc import Iterator

from backends.context import CallContext, CancellationToken
from backends.jobs.records import Job
from backends.ports import JobStore, JsonObject


class RunningJob:
    """The job of one claimant. `context`: for calls of ports, in the name of who asked for the job.

    Keys of remote providers that came with the request are not here: they are never kept beyond it.
    """

    def __init__(self, store: JobStore, job: Job, claimant: str, cancellation: CancellationToken | None = None) -> None:
        self.job = job
        self.context = CallContext(
            request_id=f"job-{job.job_id}",
            principal=job.principal,
            owner=job.owner,
            cancellation=cancellation or CancellationToken(),
        )
        self._store = store
        self._claimant = claimant

    def parts(self) -> Iterator[JsonObject]:
        """What earlier attempts have saved, in order."""
        return self._store.parts(self.job.key)

    def is_unwanted(self) -> bool:
        """Whether its client has cancelled it. Raises Unavailable."""
        job = self._store.claimed(self._claimant)
        return job is not None and job.cancel_requested

    def save_part(self, part: int, body: JsonObject) -> None:
        """Keep a piece of the result. Raises Cancelled, Conflict: another runner has taken the job over."""
        self.context.check()
        self._store.save_part(self._claimant, part, body)

    def progress(self, **progress: object) -> None:
        """Say how far it is. Raises Cancelled, Conflict."""
        self.context.check()
        self._store.progress(self._claimant, dict(progress))
