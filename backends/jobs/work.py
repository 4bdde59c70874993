"""What each kind of job does, and how one ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from backends.context import CancellationToken
from backends.errors import Cancelled, Conflict, StackError
from backends.jobs.records import JobKind
from backends.jobs.running import RunningJob
from backends.ports import JobStore, JsonObject

if TYPE_CHECKING:
    from backends.stack import Backends

log = logging.getLogger(__name__)

Work = Callable[[RunningJob, "Backends"], JsonObject]
"""Does a job to its end and returns its result. Goes on after the parts that earlier attempts have saved.

Raises:
    StackError: the job has failed, for the reason that the message tells its client. Cancelled.
"""


def work_on(
    store: JobStore,
    claimant: str,
    backends: Backends,
    works: Mapping[JobKind, Work],
    cancellation: CancellationToken,
) -> None:
    """Do the job that the claimant holds and write down how it ended; one that was cancelled is left to the runner."""
    job = store.claimed(claimant)
    if job is None:
        return
    try:
        result = works[job.kind](RunningJob(store, job, claimant, cancellation), backends)
    except Cancelled:
        return
    except Conflict as error:
        if store.claimed(claimant) is not None:
            store.finish(claimant, reason=error.message)
    except StackError as error:
        log.warning("job %s has failed: %s", job.job_id, error)
        store.finish(claimant, reason=error.message)
    except Exception:
        log.exception("job %s has failed", job.job_id)
        store.finish(claimant, reason="an internal error; the server's log has more")
    else:
        store.finish(claimant, result=result)
