from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath

from backends.jobs.records import Job
from backends.training.trainer import own_name

JOB = Job("post_training", "j", "m", "", "key", {}, datetime(2026, 1, 1, tzinfo=UTC))


def test_what_a_job_writes_is_named_by_no_id_that_could_lead_away() -> None:
    for job_id in ("..", "../..", "/etc", "a/b", "a" * 100, "\u00e4" * 100):
        name = PurePosixPath(own_name(replace(JOB, job_id=job_id)))
        assert name.parts == (name.name,)
        assert len(name.name) < 50


def test_jobs_of_two_owners_never_meet_in_a_name() -> None:
    pairs = [("", "ab"), ("a", "b"), ("ab", ""), ("a", "/b"), ("a/", "b"), ("", "a/b")]
    names = {own_name(replace(JOB, owner=owner, job_id=job_id)) for owner, job_id in pairs}
    assert len(names) == len(pairs)
