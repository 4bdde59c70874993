"""The work of each kind of job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from backends.config import ApiName
from backends.jobs.records import Job, JobKind
from backends.jobs.running import RunningJob
from backends.jobs.work import Work
from backends.ports import JsonObject
from backends.telemetry import names
from backends.telemetry.tracing import Value, failed

if TYPE_CHECKING:
    from backends.stack import Backends


_COMMON: tuple[ApiName, ...] = ("inference", "datasetio", "telemetry")
_OF_AGENTS: tuple[ApiName, ...] = ("agents", "tool_runtime", "safety", "vector_io")


def apis_of(job: Job) -> tuple[ApiName, ...]:
    """The APIs whose providers the job needs, for a process that opens no others."""
    if job.kind == "post_training":
        return (*_COMMON, "post_training")
    agent = job.request["task_config"]["eval_candidate"]["type"] == "agent"
    return (*_COMMON, "scoring", "eval", *(_OF_AGENTS if agent else ()))


def _traced(name: str, work: Work) -> Work:
    """The work with a span, the first of a trace, that has its inferences below it."""

    def traced(job: RunningJob, backends: Backends) -> JsonObject:
        attributes: dict[str, Value] = {
            names.JOB_ID: job.job.job_id,
            names.JOB_SUBJECT: job.job.subject,
            names.JOB_ATTEMPT: job.job.attempt,
        }
        with backends.tracing.request(job.context, name, attributes) as span:
            try:
                return work(job, backends)
            except BaseException as error:
                failed(span, error)
                raise

    return traced


WORKS: Mapping[JobKind, Work] = {
    "eval": _traced("eval_job", lambda job, backends: backends.evaluation.work(job)),
    "post_training": _traced("post_training_job", lambda job, backends: backends.training.work(job)),
}
