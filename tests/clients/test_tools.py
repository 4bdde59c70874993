"""Agents and their tools with the real `llama-stack-client`: MCP, code, retrieval, and the traces of turns."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from backends.models.store import ModelStore
from tests.backends.tools.mcp_process import mcp_server
from tests.clients.test_official_clients import VERSIONS, checks_of, client_python
from tests.sandboxes import needs_bubblewrap
from tests.servers import PROFILES, running

JOURNEY = Path(__file__).parent / "tool_journey.py"
CHECKS = checks_of(JOURNEY)


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory, model_store: ModelStore) -> Iterator[tuple[str, str, str]]:
    """A server, and two MCP servers that it may reach."""
    with mcp_server("streamable-http") as mcp, mcp_server("sse", "mark") as mark:
        settings = {
            "ONNXSTACK_MODELS_DIR": str(model_store.root),
            "ONNXSTACK_OUTBOUND__ALLOW": json.dumps([urlsplit(uri).netloc for uri in (mcp, mark)]),
        }
        data = tmp_path_factory.mktemp("tools-server")
        with running(data, profile=PROFILES / "tools.yaml", environment=settings) as server:
            yield server.url, mcp, mark


@pytest.fixture(scope="module", params=VERSIONS)
def results(request: pytest.FixtureRequest, addresses: tuple[str, str, str]) -> dict[str, str]:
    """What came of each check under one client version."""
    command = [client_python(request.param), JOURNEY, *addresses]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr
    outcome: dict[str, str] = json.loads(finished.stdout.splitlines()[-1])
    return outcome


@needs_bubblewrap
@pytest.mark.parametrize("check", CHECKS)
def test_official_client(results: dict[str, str], check: str) -> None:
    assert results[check] == "ok", results[check]


@needs_bubblewrap
def test_every_check_was_run(results: dict[str, str]) -> None:
    assert sorted(results) == sorted(CHECKS)
