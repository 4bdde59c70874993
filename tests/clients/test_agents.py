"""Agents with the real `llama-stack-client`, both versions that speak this contract, on the real models."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.test_official_clients import VERSIONS, checks_of, client_python, hasty_server
from tests.servers import RunningServer

__all__ = ["hasty_server"]

JOURNEY = Path(__file__).parent / "agent_journey.py"
CHECKS = checks_of(JOURNEY)


@pytest.fixture(scope="module", params=VERSIONS)
def results(request: pytest.FixtureRequest, real_server: RunningServer, hasty_server: RunningServer) -> dict[str, str]:
    """What came of each check under one client version."""
    finished = subprocess.run(
        [client_python(request.param), JOURNEY, real_server.url, hasty_server.url],
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


def test_every_check_was_run(results: dict[str, str]) -> None:
    assert sorted(results) == sorted(CHECKS)
