"""schemathesis, all phases, on all operations of the real server with in-memory providers: about 9,000 requests.

The cases are the same in every run. What it finds has to be in `exclusions.toml`, and what is there has to be found.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from generated.operations import OPERATIONS
from tests.contract.built import unbuilt
from tests.contract.cases import CASES, EMBEDDER, ROW
from tests.contract.faulty import FAULTS, faulty
from tests.contract.run import Report, run_schemathesis
from tests.contract.view import (
    ANSWERS,
    DATASET,
    EVALUATION,
    SCORING_FUNCTION,
    SHIELD,
    TASK,
    TOOL_GROUP,
    VECTOR_DB,
    published,
    server_view,
)
from tests.server.processes import until
from tests.servers import PROFILES, RunningServer, running

EXCLUSIONS = Path(__file__).with_name("exclusions.toml")
LABELS = {f"{operation.method} {operation.path}": name for name, operation in OPERATIONS.items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of its own that holds what `tests/contract/view.py` says that there is."""
    with running(tmp_path_factory.mktemp("schemathesis-server"), profile=PROFILES / "memory.yaml") as server:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            registered = {"vector_db_id": VECTOR_DB, "embedding_model": EMBEDDER}
            client.post("/v1/vector-dbs", json=registered).raise_for_status()
            client.post("/v1/toolgroups", json={"toolgroup_id": TOOL_GROUP, "provider_id": "memory"}).raise_for_status()
            client.post("/v1/shields", json={"shield_id": SHIELD}).raise_for_status()
            function = {"scoring_fn_id": SCORING_FUNCTION, "description": "d", "return_type": {"type": "number"}}
            client.post("/v1/scoring-functions", json=function).raise_for_status()
            columns = {"a": {"type": "string"}}
            rows = {"dataset_id": DATASET, "dataset_schema": columns, "url": {"uri": "data:text/csv,a%0Ab%0A"}}
            client.post("/v1/datasets", json=rows).raise_for_status()
            answers = {"dataset_id": ANSWERS, "dataset_schema": {name: {"type": "string"} for name in ROW}}
            line = {"uri": f"data:application/jsonl,{quote(json.dumps(ROW))}"}
            client.post("/v1/datasets", json={**answers, "url": line}).raise_for_status()
            task = {"eval_task_id": TASK, "dataset_id": ANSWERS, "scoring_functions": [SCORING_FUNCTION]}
            client.post("/v1/eval-tasks", json=task).raise_for_status()
            (span,) = (case for case in CASES if case.operation == "log_event")
            client.post("/v1/telemetry/events", json=span.body).raise_for_status()
        yield server


@pytest.fixture(scope="module")
def view(server: RunningServer) -> dict[str, Any]:
    """The view, which knows a job that has ended."""
    jobs = f"{server.url}/v1/eval/tasks/{TASK}/jobs"
    job_id = httpx.post(jobs, json={"task_config": EVALUATION}).raise_for_status().json()["job_id"]
    until(lambda: bool(httpx.get(f"{jobs}/{job_id}").json() == "completed"), "end of the job")
    return server_view(published(), {"job_id": job_id})


@pytest.fixture(scope="module")
def report(server: RunningServer, view: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_schemathesis(view, server.url, tmp_path_factory.mktemp("schemathesis"))


def excluded() -> list[Mapping[str, Any]]:
    entries: list[Mapping[str, Any]] = tomllib.loads(EXCLUSIONS.read_text()).get("exclusion", [])
    return entries


@pytest.mark.timeout(600)
def test_every_phase_ran_on_every_operation(report: Report) -> None:
    assert report.phases == {"examples", "coverage", "fuzzing", "stateful"}
    assert report.tested == len(OPERATIONS) == 74
    assert report.cases > 5000
    assert not report.errors


def test_nothing_is_found_that_is_not_excluded_with_a_reason(report: Report) -> None:
    known = {(entry["operation"], entry["check"]) for entry in excluded()}
    unexplained = sorted({(LABELS.get(label, label), kind) for label, kind in report.failures} - known)
    assert not unexplained, f"{unexplained}\n{report.text}"


def test_every_exclusion_has_a_reason_and_still_matches(report: Report) -> None:
    found = {(LABELS.get(label, label), kind) for label, kind in report.failures}
    for entry in excluded():
        assert set(entry) == {"operation", "check", "reason"} and len(entry["reason"]) > 20, entry
        assert (entry["operation"], entry["check"]) in found, f"no longer found, remove it: {entry}"


def test_good_requests_reach_every_operation_that_is_built(report: Report) -> None:
    reached = {LABELS[label] for label, accepted in report.accepted.items() if accepted}
    assert set(OPERATIONS) - unbuilt() - reached == set()


def test_a_run_on_the_log_of_the_server_shows_no_unexpected_failure(server: RunningServer, report: Report) -> None:
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    failures = [line for line in lines if line.get("level") in ("error", "critical")]
    assert not failures, failures[:3]


@pytest.fixture(scope="module")
def report_of_faults(server: RunningServer, view: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A run on some operations, each of which answers wrongly in its own way."""
    options = [option for name in FAULTS for option in ("--include-operation-id", name)]
    with faulty(server.url) as url:
        directory = tmp_path_factory.mktemp("faulty")
        return run_schemathesis(view, url, directory, "--phases", "coverage,fuzzing", *options)


@pytest.mark.parametrize("operation", FAULTS)
def test_a_wrong_answer_is_found(report_of_faults: Report, operation: str) -> None:
    label = f"{OPERATIONS[operation].method} {OPERATIONS[operation].path}"
    kinds = {kind for where, kind in report_of_faults.failures if where == label}
    assert FAULTS[operation][1] in kinds
