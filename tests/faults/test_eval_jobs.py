"""Fault 27 for evaluations: the process of a job is killed at each stage of it, and the clock of the day is stepped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.context import CallContext
from backends.jobs.records import Job
from backends.store import SqlJobStore, open_database
from tests.faults.wire import LLM, ask, children, command_of, master_of
from tests.server.processes import until
from tests.servers import ROOT, RunningServer, running

ROWS = 40
"""More than one chunk of a job, less than two."""
CONTEXT = CallContext(request_id="test")
CLOCK = """
import os, time
_time = time.time
def _stepped():
    with open(os.environ["TEST_CLOCK"]) as file:
        return _time() + float(file.read() or 0)
time.time = _stepped
"""
CONFIG = {
    "type": "benchmark",
    "eval_candidate": {
        "type": "model",
        "model": LLM,
        "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 3},
    },
}


# Minutes on a busy machine.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the seconds by which the clock of the server's processes is wrong."""
    file = tmp_path_factory.mktemp("clock") / "offset"
    file.write_text("0")
    (file.parent / "sitecustomize.py").write_text(CLOCK)
    return file


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, real_models: dict[str, str], clock: Path
) -> Iterator[RunningServer]:
    settings = {"PYTHONPATH": f"{clock.parent}{os.pathsep}{ROOT}", "TEST_CLOCK": str(clock)}
    with running(tmp_path_factory.mktemp("jobs"), environment={**real_models, **settings}) as server:
        rows = [
            {
                "chat_completion_input": [{"role": "user", "content": f"Say {number}."}],
                "input_query": "def f():\n",
                "generated_answer": "",
                "test": "def check(f):\n    pass\n",
                "entry_point": "f",
            }
            for number in range(ROWS)
        ]
        kinds = dict.fromkeys(rows[0], "string") | {"chat_completion_input": "chat_completion_input"}
        bodies: list[tuple[str, dict[str, Any]]] = [
            (
                "/v1/datasets",
                {
                    "dataset_id": "rows",
                    "dataset_schema": {name: {"type": kind} for name, kind in kinds.items()},
                    "url": {"uri": "data:application/jsonl,"},
                },
            ),
            ("/v1/datasetio/rows", {"dataset_id": "rows", "rows": rows}),
            (
                "/v1/eval-tasks",
                # Tests in the sandbox take the time in which results are being made.
                {"eval_task_id": "task", "dataset_id": "rows", "scoring_functions": ["benchmark::pass_at_1"]},
            ),
        ]
        for path, body in bodies:
            answer = ask(server, "POST", path, body)
            assert answer.status == 200, answer.text
        yield server


@pytest.fixture(scope="module")
def expected(server: RunningServer) -> list[str]:
    """The answers to the rows, by a job that nothing happens to."""
    job_id = submitted(server)
    return answers(server, ended(server, job_id))


def submitted(server: RunningServer) -> str:
    answer = ask(server, "POST", "/v1/eval/tasks/task/jobs", {"task_config": CONFIG})
    assert answer.status == 200, answer.text
    return str(answer.json["job_id"])


def stored(server: RunningServer, job_id: str) -> Job:
    store = SqlJobStore(open_database(f"sqlite:///{server.data / 'state.db'}"))
    try:
        job = store.get(CONTEXT, "eval", job_id)
        assert job is not None
        return job
    finally:
        store.close()


def process_of_job(server: RunningServer) -> int | None:
    """The process that works on the only job."""
    waiting = [master_of(server)]
    while waiting:
        pid = waiting.pop()
        try:
            if "server.job" in command_of(pid):
                return pid
            waiting += children(pid)
        except (OSError, ValueError):  # it has just ended
            continue
    return None


def ended(server: RunningServer, job_id: str) -> Job:
    job = until(lambda: (found := stored(server, job_id)).finished_at and found, "end of the job", 240)
    until(lambda: process_of_job(server) is None, "end of its process", 120)  # the next is another's
    assert isinstance(job, Job)
    return job


def answers(server: RunningServer, job: Job) -> list[str]:
    assert (job.state, job.reason) == ("completed", "")
    result = ask(server, "GET", f"/v1/eval/tasks/task/jobs/{job.job_id}/result").json
    assert len(result["scores"]["benchmark::pass_at_1"]["score_rows"]) == ROWS
    return [generation["generated_answer"] for generation in result["generations"]]


def answered(job: Job) -> int:
    return int(job.progress.get("answered", 0))


STAGES = {
    "claimed": lambda job: job.state == "in_progress",
    "rows generated": lambda job: 0 < answered(job) < ROWS,
    "results being made": lambda job: answered(job) == ROWS,
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_that_is_killed_goes_on_where_it_was_and_loses_and_doubles_nothing(
    server: RunningServer, expected: list[str], stage: str
) -> None:
    job_id = submitted(server)
    pid = until(
        lambda: STAGES[stage](stored(server, job_id)) and process_of_job(server), f"process of a job: {stage}", 120
    )
    os.kill(pid, signal.SIGSTOP)
    seen = stored(server, job_id)
    assert STAGES[stage](seen) and seen.finished_at is None, "it went on before it could be killed"
    os.kill(pid, signal.SIGKILL)
    job = ended(server, job_id)
    assert job.attempt == 2
    assert answers(server, job) == expected
    assert ask(server, "GET", f"/v1/eval/tasks/task/jobs/{job_id}").json == "completed"


def test_a_clock_that_is_stepped_takes_no_job_from_who_works_on_it(
    server: RunningServer, expected: list[str], clock: Path
) -> None:
    """An hour forward, two back and on again, each time at a later stage of the job."""
    job_id = submitted(server)
    try:
        for stage, offset in zip(STAGES.values(), (3600, -3600, 1800), strict=True):
            until(lambda stage=stage: (job := stored(server, job_id)).finished_at or stage(job), "stage", 120)
            clock.write_text(str(offset))
        job = ended(server, job_id)
    finally:
        clock.write_text("0")
    assert job.attempt == 1
    assert answers(server, job) == expected
