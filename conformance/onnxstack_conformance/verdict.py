"""What a run found, by operation: passed, broken, missing or untested."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from onnxstack_conformance import __version__
from onnxstack_conformance.contract import Contract

Word = Literal["passed", "broken", "missing", "untested"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that one operation broke. curl and shown: the request to repeat and what it was answered."""

    operation: str
    rule: str
    says: str
    source: str
    layer: str
    message: str
    curl: str = ""
    shown: str = ""

    @property
    def key(self) -> str:
        """What stays the same from run to run: the operation and the rule."""
        return f"{self.operation}: {self.rule}"


@dataclass(frozen=True, slots=True)
class Rule:
    """How one rule ended. outcome: passed, broken, missing, skipped, or error (of the kit itself)."""

    name: str
    says: str
    source: str
    layer: str
    operations: tuple[str, ...]
    outcome: str
    message: str
    seconds: float


@dataclass(slots=True)
class Judged:
    """One operation. kept: the rules that it kept; skips: why rules on it were left out."""

    operation: str
    api: str
    label: str
    verdict: Word = "untested"
    kept: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    skips: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """A whole run. load: figures of the load smoke; left_behind: what the contract gives no way to take away."""

    url: str
    started: str
    seconds: float
    operations: dict[str, Judged]
    rules: list[Rule]
    load: dict[str, Any]
    left_behind: list[str]
    not_cleaned: list[str]
    errors: list[str]
    known: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)

    def count(self, verdict: Word) -> int:
        return sum(judged.verdict == verdict for judged in self.operations.values())

    @property
    def findings(self) -> list[Finding]:
        return [finding for judged in self.operations.values() for finding in judged.findings]

    @property
    def score(self) -> float:
        """The share of the operations asked for that passed, 0..1."""
        return self.count("passed") / len(self.operations) if self.operations else 0.0

    def exit_code(self, *, allow_missing: bool) -> int:
        """0: every operation asked for passed; 1: something is broken that the baseline does not know; 2: something
        is missing or could not be tested; 3: the kit itself failed."""
        if self.errors:
            return 3
        if {finding.key for finding in self.findings} - set(self.known):
            return 1
        if not allow_missing and self.count("missing") + self.count("untested"):
            return 2
        return 0

    @property
    def by_api(self) -> dict[str, tuple[int, int]]:
        """How many operations of each API passed, and how many it has of those asked for."""
        found: dict[str, tuple[int, int]] = {}
        for judged in self.operations.values():
            passed, of = found.get(judged.api, (0, 0))
            found[judged.api] = passed + (judged.verdict == "passed"), of + 1
        return dict(sorted(found.items()))

    def as_json(self) -> str:
        content = asdict(self) | {
            "kit": __version__,
            "score": self.score,
            "apis": {api: {"passed": passed, "of": of} for api, (passed, of) in self.by_api.items()},
            "verdicts": {
                word: sorted(name for name, judged in self.operations.items() if judged.verdict == word)
                for word in ("passed", "broken", "missing", "untested")
            },
        }
        return json.dumps(content, indent=1) + "\n"


@dataclass(slots=True)
class Notes:
    """What is noted while the rules run, in their order."""

    rules: list[Rule] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    succeeded: set[str] = field(default_factory=set)
    load: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def by_operation(self, contract: Contract, asked: Collection[str]) -> dict[str, Judged]:
        """The verdicts on the operations asked for, and on others that were found broken along the way.

        An operation that is missing in one place and works in another is broken: it is there. One that was called
        along the way of another's rule and kept to the contract there has passed, when no rule of its own says more.
        """
        found = {}
        for name, operation in contract.operations.items():
            judged = Judged(name, operation.api, operation.label)
            judged.findings = [finding for finding in self.findings if finding.operation == name]
            if name not in asked and not judged.findings:
                continue
            judged.missing = [message for where, message in self.missing if where == name]
            rules = [rule for rule in self.rules if name in rule.operations]
            judged.kept = [rule.name for rule in rules if rule.outcome == "passed"]
            judged.skips = sorted({rule.message for rule in rules if rule.outcome == "skipped"})
            if judged.missing and name in self.succeeded:
                judged.findings += [
                    Finding(name, "is_there_or_not", "An operation is there or it is not.", "our interpretation",
                            "behaviour", f"{message}, and the operation works elsewhere")
                    for message in dict.fromkeys(judged.missing)
                ]  # fmt: skip
            if judged.findings:
                judged.verdict = "broken"
            elif judged.missing:
                judged.verdict = "missing"
            elif name in self.succeeded:
                judged.verdict = "passed"
            found[name] = judged
        return found


def compare(report: Report, baseline: Path) -> None:
    """Note which findings an earlier report has already, and which of its findings are gone.

    Raises:
        ValueError: the file is no report of this kit.
    """
    try:
        before: Mapping[str, Any] = json.loads(baseline.read_text())
        known: Sequence[str] = [
            f"{finding['operation']}: {finding['rule']}"
            for judged in before["operations"].values()
            for finding in judged["findings"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{baseline} is no report of onnxstack-conform --json: {error}") from None
    found = {finding.key for finding in report.findings}
    report.known = sorted(found & set(known))
    ran = {rule.name for rule in report.rules if rule.outcome == "passed"}
    report.mended = sorted(key for key in set(known) - found if key.partition(": ")[2] in ran)
