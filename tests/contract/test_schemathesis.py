"""schemathesis, all phases, on all operations of the real server with in-memory providers: about 9,000 requests.

The cases are the same in every run. What it finds has to be in `exclusions.toml`, and what is there has to be found.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from generated.operations import OPERATIONS
from tests.contract.built import unbuilt
from tests.contract.cases import CASES, EMBEDDER
from tests.contract.faulty import FAULTS, faulty
from tests.contract.run import Report, run_schemathesis
from tests.contract.view import DATASET, SCORING_FUNCTION, SHIELD, TOOL_GROUP, VECTOR_DB, published, server_view
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
            (span,) = (case for case in CASES if case.operation == "log_event")
            client.post("/v1/telemetry/events", json=span.body).raise_for_status()
        yield server


@pytest.fixture(scope="module")
def report(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_schemathesis(server_view(published()), server.url, tmp_path_factory.mktemp("schemathesis"))


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
    unexplained = sorted((LABELS[label], kind) for label, kind in report.failures if (LABELS[label], kind) not in known)
    assert not unexplained, f"{unexplained}\n{report.text}"


def test_every_exclusion_has_a_reason_and_still_matches(report: Report) -> None:
    found = {(LABELS[label], kind) for label, kind in report.failures}
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
def report_of_faults(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A run on some operations, each of which answers wrongly in its own way."""
    options = [option for name in FAULTS for option in ("--include-operation-id", name)]
    with faulty(server.url) as url:
        directory = tmp_path_factory.mktemp("faulty")
        return run_schemathesis(server_view(published()), url, directory, "--phases", "coverage,fuzzing", *options)


@pytest.mark.parametrize("operation", FAULTS)
def test_a_wrong_answer_is_found(report_of_faults: Report, operation: str) -> None:
    label = f"{OPERATIONS[operation].method} {OPERATIONS[operation].path}"
    kinds = {kind for where, kind in report_of_faults.failures if where == label}
    assert FAULTS[operation][1] in kinds
