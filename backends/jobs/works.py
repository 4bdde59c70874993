"""The work of each kind of job."""

from __future__ import annotations

from collections.abc import Mapping

from backends.jobs.records import JobKind
from backends.jobs.work import Work

WORKS: Mapping[JobKind, Work] = {
    "eval": lambda job, backends: backends.evaluation.work(job),
    "post_training": lambda job, backends: backends.training.work(job),
}
