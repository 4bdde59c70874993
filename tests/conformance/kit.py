"""The kit as these tests run it: the command in this process, and its report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onnxstack_conformance import cli


@dataclass(frozen=True, slots=True)
class Run:
    """What a run ended with. code: the exit status; report: its JSON."""

    code: int
    report: dict[str, Any]

    def operations(self, verdict: str) -> set[str]:
        return set(self.report["verdicts"][verdict])

    @property
    def findings(self) -> list[dict[str, Any]]:
        return [finding for judged in self.report["operations"].values() for finding in judged["findings"]]


def conform(url: str, directory: Path, *options: str) -> Run:
    """Run the kit on a server."""
    report = directory / "report.json"
    report.unlink(missing_ok=True)
    code = pytest.main(cli.arguments([url, "--json", str(report), *options]))
    return Run(int(code), json.loads(report.read_text()))


ECHO = ("--tool", 'standin_echo={"text": "hello"}')
BEHAVIOUR = ("--layer", "behaviour", *ECHO)
