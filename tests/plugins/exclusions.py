"""Holds what a whole run leaves out at the numbers committed in `tests/exclusions.toml`: growth fails the run in CI.

A skipped test looks like a passed one in a summary that nobody reads. Counted are the tests that were skipped, those
that are expected to fail, and the contract checks that `tests/contract/exclusions.toml` leaves out. Elsewhere than in
CI (`CI` in the environment) the comparison is only printed, since a laptop may lack PostgreSQL or /proc.
"""

from __future__ import annotations

import os
import tomllib
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NUMBERS = TESTS / "exclusions.toml"
CONTRACT = TESTS / "contract" / "exclusions.toml"


class Exclusions:
    """Counts the outcomes of one session."""

    def __init__(self, allowed: dict[str, int], excluded_checks: int) -> None:
        self.allowed = allowed
        self.counts: Counter[str] = Counter(excluded_checks=excluded_checks)
        self.reasons: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, "wasxfail"):
            if report.when == "call" or report.skipped:
                self.counts["xfailed"] += 1
        elif report.skipped:
            self.counts["skipped"] += 1
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.reasons.append(f"{report.nodeid}: {reason}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:  # a whole file, by `importorskip` or a module-level skip
            self.counts["skipped"] += 1
            self.reasons.append(f"{report.nodeid}: whole file")

    def grown(self) -> list[str]:
        """A line for every number above the committed one."""
        return [
            f"{name}: {self.counts[name]}, committed are {allowed}"
            for name, allowed in self.allowed.items()
            if self.counts[name] > allowed
        ]

    def shrunk(self) -> list[str]:
        """A line for every committed number that is higher than needed."""
        return [
            f"{name}: {self.counts[name]}, committed are {allowed}"
            for name, allowed in self.allowed.items()
            if self.counts[name] < allowed
        ]

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and os.environ.get("CI") and self.grown():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        grown, shrunk = self.grown(), self.shrunk()
        if grown:
            terminalreporter.section(f"more is left out than {NUMBERS.name} allows", red=bool(os.environ.get("CI")))
            for line in grown + self.reasons:
                terminalreporter.line(line)
        elif shrunk:
            terminalreporter.section(f"less is left out than {NUMBERS.name} says: lower it")
            for line in shrunk:
                terminalreporter.line(line)


def is_whole_run(config: pytest.Config) -> bool:
    """Whether the run selects nothing: no path, no `-k`, no `-m`."""
    options = config.option
    return (
        config.args_source == pytest.Config.ArgsSource.TESTPATHS
        and not options.keyword
        and not options.markexpr
        and not options.collectonly
    )


def pytest_configure(config: pytest.Config) -> None:
    if is_whole_run(config):
        allowed = tomllib.loads(NUMBERS.read_text("utf-8"))
        excluded = tomllib.loads(CONTRACT.read_text("utf-8")).get("exclusion", []) if CONTRACT.exists() else []
        config.pluginmanager.register(Exclusions(allowed, len(excluded)), "exclusions-of-this-run")
