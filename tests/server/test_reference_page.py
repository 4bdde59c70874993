"""The API reference page in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from generated.operations import OPERATIONS
from tests.server.processes import until
from tests.servers import RunningServer, launch

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROFILE = Path(__file__).parent / "profile.yaml"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = launch(tmp_path_factory.mktemp("reference"), profile=PROFILE)
    yield running
    assert running.stop() == 0


def test_nothing_on_the_page_comes_from_another_host_and_its_policy_forbids_it(server: RunningServer) -> None:
    with urllib.request.urlopen(f"{server.url}/docs") as answer:
        page, policy = answer.read().decode(), answer.headers["content-security-policy"]
    assert not re.search(r"https?://|//[a-z]", page)
    assert "default-src 'none'" in policy
    assert "http" not in policy
    links = re.findall(r'(?:src|href)="([^"?]+)', page)
    assert len(links) >= 4
    for link in links:
        with urllib.request.urlopen(f"{server.url}/{link}") as answer:
            assert answer.status == 200


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_shows_every_operation_of_the_3_1_contract(server: RunningServer, tmp_path: Path) -> None:
    browser = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=30000",
            "--enable-logging=stderr",
            "--dump-dom",
            f"{server.url}/docs",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    shown = {re.sub(r"[\u200b]|<[^>]*>", "", path) for path in re.findall(r'data-path="([^"]+)"', browser.stdout)}
    assert shown == {operation.path for operation in OPERATIONS.values()}
    assert browser.stdout.count('class="opblock-summary-method"') == len(OPERATIONS)
    assert "OAS 3.1" in browser.stdout
    refused = [line for line in browser.stderr.splitlines() if "CONSOLE" in line and "Refused" in line]
    assert refused == []
    log = until(lambda: server.log.read_text() if "/openapi.json" in server.log.read_text() else None, "request")
    assert "unknown" not in log
