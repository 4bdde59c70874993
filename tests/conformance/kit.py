"""The kit as these tests run it: the command in this process, and its report."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onnxstack_conformance import cli, rules


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


KIT = "onnxstack_conformance"
RULES = Path(rules.__path__[0])
MODULES = {
    node.name: f"{rules.__name__}.{path.stem}"
    for path in RULES.glob("test_*.py")
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef)
}


def conform(url: str, directory: Path, *options: str, rule: str | None = None) -> Run:
    """Run the kit on a server. rule: only this one, and only its module is read, which is quick."""
    report = directory / "report.json"
    report.unlink(missing_ok=True)
    arguments = cli.arguments([url, "--json", str(report), *options, *(("--rule", rule) if rule else ())])
    if rule:
        arguments[arguments.index(KIT)] = MODULES[rule]
    return Run(int(pytest.main(arguments)), json.loads(report.read_text()))


ECHO = ("--tool", 'standin_echo={"text": "hello"}')
BEHAVIOUR = ("--layer", "behaviour", *ECHO)
