"""Data, scoring and evaluation with the real `llama-stack-client`, both versions, on the real models."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import csv, parquet
from vega_datasets import local_data

from backends.models.store import ModelStore
from tests.clients import data_journey
from tests.clients.test_official_clients import VERSIONS, client_python
from tests.servers import RunningServer, running

JOURNEY = Path(__file__).parent / "data_journey.py"


CHECKS = [check.__name__ for check in data_journey.CHECKS]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_store: ModelStore) -> Iterator[RunningServer]:
    """A server of its own: tasks and functions stay where they were registered, and other journeys count them."""
    environment = {"ONNXSTACK_MODELS_DIR": str(model_store.root)}
    with running(tmp_path_factory.mktemp("data-server"), environment=environment) as server:
        yield server


# The older client differs in nothing of these operations; it runs with `--slow`.
@pytest.fixture(scope="module", params=[pytest.param(VERSIONS[0], marks=pytest.mark.slow), VERSIONS[1]])
def results(
    request: pytest.FixtureRequest, server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What came of each check under one client version."""
    weather = local_data.seattle_weather.filepath
    copy = tmp_path_factory.mktemp("weather") / "weather.parquet"
    parquet.write_table(csv.read_csv(weather), copy)
    finished = subprocess.run(
        [client_python(request.param), JOURNEY, server.url, weather, copy],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr
    outcome: dict[str, str] = json.loads(finished.stdout.splitlines()[-1])
    return outcome


@pytest.mark.parametrize("check", CHECKS)
def test_official_client(results: dict[str, str], check: str) -> None:
    assert results[check] == "ok", results[check]
