"""schemathesis as a process of its own, and what it reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import ROOT

CONFIG = Path(__file__).with_name("schemathesis.toml")
TIMEOUT_S = 540


@dataclass(frozen=True, slots=True)
class Report:
    """What a run says. failures: (`METHOD /path`, kind); accepted: good requests that succeeded, by `METHOD /path`."""

    phases: frozenset[str]
    tested: int
    cases: int
    failures: frozenset[tuple[str, str]]
    accepted: dict[str, int]
    errors: list[Any]
    text: str


def run_schemathesis(view: dict[str, Any], url: str, directory: Path, *options: str) -> Report:
    """Run it on a document against a server; `directory` is for its files. Fails the test when it does not run."""
    document, found = directory / "view.json", directory / "report.json"
    document.write_text(json.dumps(view))
    arguments = [document, "--url", url, "--no-color", "--report", "json", "--report-json-path", found, *options]
    finished = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", CONFIG, "run", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert finished.returncode in (0, 1), finished.stdout[-4000:] + finished.stderr[-4000:]
    report = json.loads(found.read_text())
    return Report(
        phases=frozenset(name for name, phase in report["phases"].items() if phase["status"] in ("success", "failure")),
        tested=report["operations"]["tested"],
        cases=report["test_cases"]["generated"],
        failures=frozenset((label, kind["type"]) for kind in report["failures"] for label in kind["operations"]),
        accepted={
            label: sum(phase["accepted"] for phase in phases.values())
            for label, phases in report["valid_rates"].items()
        },
        errors=report["errors"],
        text=finished.stdout[-20_000:],
    )
