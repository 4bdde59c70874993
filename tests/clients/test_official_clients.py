"""The real `llama-stack-client`, both versions that speak this contract, against the product on its real models."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.models.store import ModelStore
from tests.servers import RunningServer, running

VERSIONS = ("0.1.0", "0.1.1")
JOURNEY = Path(__file__).parent / "journey.py"


def checks_of(journey: Path) -> list[str]:
    """The names of the checks of a journey."""
    nodes = ast.parse(journey.read_text()).body
    functions = [node.name for node in nodes if isinstance(node, ast.FunctionDef)]
    return [name for name in functions if name != "main" and not name.startswith("_")]


CHECKS = checks_of(JOURNEY)


def client_python(version: str) -> Path:
    """The interpreter of a venv that holds this client version; made once and kept in the tests' cache."""
    cache = Path(os.environ.get("ONNXSTACK_TEST_CACHE", "~/.cache/onnxstack-tests")).expanduser()
    home = cache / f"llama-stack-client-{version}-py{sys.version_info.major}.{sys.version_info.minor}"
    python = home / "bin" / "python"
    if home.exists():
        os.utime(home)  # `model_store` drops what nobody has used for a day
    if not (home / "complete").exists():
        venv.create(home, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", f"llama-stack-client=={version}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (home / "complete").touch()
    return python


@pytest.fixture(scope="module")
def hasty_server(tmp_path_factory: pytest.TempPathFactory, model_store: ModelStore) -> Iterator[RunningServer]:
    """The product with its real models, which gives up every call after a few seconds."""
    environment = {"ONNXSTACK_MODELS_DIR": str(model_store.root), "ONNXSTACK_LIMITS__REQUEST_TIMEOUT_S": "3"}
    with running(tmp_path_factory.mktemp("hasty-server"), environment=environment) as server:
        yield server


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
