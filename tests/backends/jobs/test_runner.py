from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from backends.context import CallContext
from backends.errors import BadRequest
from backends.jobs.executions import ProcessExecution, ThreadExecution
from backends.jobs.records import Job, JobKey
from backends.jobs.runner import MAX_ATTEMPTS, Execution, Runner
from backends.jobs.running import RunningJob
from backends.jobs.work import Work, work_on
from backends.memory.jobs import MemoryJobStore
from backends.ports import JobStore
from backends.stack import Backends
from backends.store import SqlJobStore, open_database

CONTEXT = CallContext(request_id="test")
NO_BACKENDS = cast("Backends", None)
DEADLINE_S = 20.0


def schedule(store: JobStore, job_id: str = "j") -> None:
    store.add(CONTEXT, Job("eval", job_id, "task", "", "key", {}, datetime.now(UTC)))


def job_of(store: JobStore, job_id: str = "j") -> Job:
    found = store.get(CONTEXT, "eval", job_id)
    assert found is not None
    return found


def wait_for(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def in_threads(store: JobStore, work: Work) -> Callable[[str], Execution]:
    return lambda claimant: ThreadExecution(
        lambda cancellation: work_on(store, claimant, NO_BACKENDS, {"eval": work}, cancellation)
    )


@contextmanager
def running(store: JobStore, start: Callable[[str], Execution], limit: int = 2) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=Runner(store, start, {"eval": limit}).run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def until_cancelled(job: RunningJob, _backends: Backends) -> dict[str, Any]:
    job.progress(waiting=True)
    assert job.context.cancellation.wait(DEADLINE_S)
    job.context.check()
    raise AssertionError


def test_a_scheduled_job_is_worked_on_and_completed(store: JobStore) -> None:
    def work(job: RunningJob, _backends: Backends) -> dict[str, Any]:
        job.progress(done=1)
        return {"seen": job.job.job_id, "owner": job.context.owner}

    with running(store, in_threads(store, work)):
        schedule(store)
        wait_for(lambda: job_of(store).state == "completed")
    assert job_of(store).result == {"seen": "j", "owner": ""}
    assert job_of(store).progress == {"done": 1}


def test_a_job_that_is_refused_has_failed_for_that_reason() -> None:
    def work(job: RunningJob, _backends: Backends) -> dict[str, Any]:
        raise BadRequest("the dataset has no column `x`")

    store = MemoryJobStore()
    with running(store, in_threads(store, work)):
        schedule(store)
        wait_for(lambda: job_of(store).state == "failed")
    assert job_of(store).reason == "the dataset has no column `x`"


def test_a_fault_of_ours_fails_the_job_without_telling_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    def work(job: RunningJob, _backends: Backends) -> dict[str, Any]:
        raise ZeroDivisionError("secret")

    store = MemoryJobStore()
    with running(store, in_threads(store, work)):
        schedule(store)
        wait_for(lambda: job_of(store).state == "failed")
    assert "secret" not in job_of(store).reason
    assert "secret" in caplog.text


def test_a_cancelled_job_ends_within_seconds(store: JobStore) -> None:
    with running(store, in_threads(store, until_cancelled)):
        schedule(store)
        wait_for(lambda: bool(job_of(store).progress))
        store.cancel(CONTEXT, "eval", "j")
        wait_for(lambda: job_of(store).state == "failed")
    assert job_of(store).reason == "cancelled"


def test_no_more_jobs_than_allowed_run_at_once() -> None:
    store = MemoryJobStore()
    for index in range(3):
        schedule(store, f"j{index}")
    with running(store, in_threads(store, until_cancelled), limit=2):
        wait_for(lambda: sum(bool(job.progress) for job in store.list(CONTEXT, "eval")) == 2)
        assert job_of(store, "j2").state == "scheduled"
        store.cancel(CONTEXT, "eval", "j0")
        wait_for(lambda: bool(job_of(store, "j2").progress))


def test_a_stopped_runner_leaves_its_job_to_the_next_which_goes_on_after_its_parts(store: JobStore) -> None:
    def first(job: RunningJob, backends: Backends) -> dict[str, Any]:
        job.save_part(0, {"rows": [1, 2]})
        return until_cancelled(job, backends)

    def second(job: RunningJob, _backends: Backends) -> dict[str, Any]:
        return {"before": list(job.parts()), "attempt": job.job.attempt}

    schedule(store)
    with running(store, in_threads(store, first)):
        wait_for(lambda: bool(job_of(store).progress))
    assert job_of(store).state == "in_progress"
    with running(store, in_threads(store, second)):
        wait_for(lambda: job_of(store).state == "completed")
    assert job_of(store).result == {"before": [{"rows": [1, 2]}], "attempt": 1}


def test_a_job_whose_runner_has_died_is_taken_over_after_its_silence(store: JobStore) -> None:
    clock = [0.0]
    schedule(store)
    assert store.claim("dead", ["eval"], {}) is not None
    started: list[str] = []

    def start(claimant: str) -> Execution:
        started.append(claimant)
        return ThreadExecution(lambda _cancellation: None)

    runner = Runner(store, start, {"eval": 1}, clock=lambda: clock[0])
    for clock[0] in (0.0, 2.0, 4.0):
        runner.tick()
    store.beat("dead")  # it was only slow
    for clock[0] in (5.0, 7.0, 10.0):
        runner.tick()
    assert not started
    clock[0] = 11.5
    runner.tick()
    assert len(started) == 1
    assert job_of(store).attempt == 2


def test_a_jump_of_the_time_of_day_takes_no_job_from_who_works_on_it(tmp_path: Path) -> None:
    today = [datetime(2026, 1, 1, 12, tzinfo=UTC)]
    store = SqlJobStore(open_database(f"sqlite:///{tmp_path / 'state.db'}"), now=lambda: today[0])
    go_on = threading.Event()

    def work(job: RunningJob, _backends: Backends) -> dict[str, Any]:
        job.progress(begun=True)
        assert go_on.wait(DEADLINE_S)
        return {}

    key = JobKey("eval", "", "j")
    with running(store, in_threads(store, work)), running(store, in_threads(store, work)):
        schedule(store)
        wait_for(lambda: bool(job_of(store).progress))
        for jump in (timedelta(hours=1), timedelta(hours=-2)):
            today[0] += jump
            beats = store.heartbeats(["eval"])[key]
            wait_for(lambda beats=beats: store.heartbeats(["eval"])[key] > beats + 1)  # type: ignore[misc]
            assert (job_of(store).state, job_of(store).attempt) == ("in_progress", 1)
        go_on.set()
        wait_for(lambda: job_of(store).state == "completed")
    done = job_of(store)
    assert done.attempt == 1
    assert done.started_at is not None
    assert done.finished_at is not None
    assert done.started_at <= done.finished_at, "a job that ended before it began"
    store.close()


def test_a_job_whose_process_is_killed_is_tried_again_and_fails_in_the_end(store: JobStore) -> None:
    attempts = 0

    def start(_claimant: str) -> Execution:
        nonlocal attempts
        attempts += 1
        return ProcessExecution([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], {})

    schedule(store)
    with running(store, start):
        wait_for(lambda: job_of(store).state == "failed")
    assert attempts == MAX_ATTEMPTS
    assert job_of(store).reason == f"its process was ended by SIGKILL, in attempt {MAX_ATTEMPTS} of {MAX_ATTEMPTS}"


def test_a_process_that_does_not_heed_its_end_is_killed() -> None:
    store = MemoryJobStore()
    code = "import signal, sys, time; signal.signal(15, lambda *_: None); print('up', flush=True); time.sleep(600)"
    with running(store, lambda _claimant: ProcessExecution([sys.executable, "-c", code], {})):
        schedule(store)
        wait_for(lambda: job_of(store).state == "in_progress")
        store.cancel(CONTEXT, "eval", "j")
        wait_for(lambda: job_of(store).state == "failed")
    assert job_of(store).reason == "cancelled"
