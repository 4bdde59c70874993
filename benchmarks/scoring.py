"""Rows scored per second by the functions that ask no model, beside the same comparison as a bare loop.

The loop is what a script would do: it checks nothing, names no place and adds nothing up.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from backends.config import BackendSettings, ProviderSettings
from backends.context import CallContext
from backends.scoring.builtin import BUILT_IN
from backends.stack import Backends, open_backends
from benchmarks.clock import seconds_of
from benchmarks.report import Row, alone
from generated.models import RegexParserScoringFnParams, RegisterDatasetRequest

ROWS = 50_000
CHOICE = "basic::regex_parser_multiple_choice_answer"
_CONTEXT = CallContext(request_id="bench")
_SCHEMA = {"input_query": "string", "expected_answer": "string", "generated_answer": "string"}


def measure(*, repeat: int, rows: int = ROWS) -> list[Row]:
    """Rows/s of the basic functions on rows in memory, and of one on a dataset."""
    asked = [
        {
            "input_query": f"question {row}",
            "expected_answer": "ABCD"[row % 4],
            "generated_answer": f"Let me think about number {row}. Answer: {'ABCD'[row * 7 % 4]}",
        }
        for row in range(rows)
    ]
    with tempfile.TemporaryDirectory(prefix="onnxstack-bench-") as folder:
        stack = open_backends(
            BackendSettings(
                data_dir=Path(folder),
                providers=(
                    ProviderSettings(api="datasetio", provider_id="lancedb", provider_type="inline::lancedb"),
                    ProviderSettings(api="scoring", provider_id="basic", provider_type="inline::basic"),
                ),
            )
        )
        try:
            return _measure(stack, asked, repeat)
        finally:
            stack.close()


def _measure(stack: Backends, asked: list[dict[str, str]], repeat: int) -> list[Row]:
    params = BUILT_IN[CHOICE].params
    if not isinstance(params, RegexParserScoringFnParams):
        raise TypeError("a function of patterns")
    patterns = [
        re.compile(p.replace(r"\x{FF1A}", "\uff1a").replace(r"\pL\pN", r"\w")) for p in params.parsing_regexes or ()
    ]
    loops: dict[str, Callable[[dict[str, str]], bool]] = {
        "basic::equality": lambda row: row["expected_answer"] == row["generated_answer"],
        "basic::subset_of": lambda row: row["expected_answer"] in row["generated_answer"],
        CHOICE: lambda row: _first(patterns, row["generated_answer"]) == row["expected_answer"],
    }
    found = {name: Row(f"{name}, rows in memory", "rows/s", [], "a bare loop with re") for name in loops}
    batch = Row("basic::subset_of, a dataset", "rows/s", [])
    schema = {name: {"type": kind} for name, kind in _SCHEMA.items()}
    empty = {"dataset_id": "bench", "dataset_schema": schema, "url": {"uri": "data:application/jsonl,"}}
    stack.datasets.register(_CONTEXT, RegisterDatasetRequest.model_validate(empty))
    stack.datasets.append(_CONTEXT, "bench", asked, where="/dataset_id")
    subset = {"basic::subset_of": None}
    for _ in range(repeat):
        for name, loop in loops.items():
            found[name].ours.append(
                len(asked) / seconds_of(lambda name=name: stack.scoring.score(_CONTEXT, asked, {name: None}))
            )
            found[name].peer.append(len(asked) / seconds_of(lambda loop=loop: [float(loop(row)) for row in asked]))
        batch.ours.append(
            len(asked) / seconds_of(lambda: stack.dataset_scoring.score(_CONTEXT, "bench", subset, keep=False))
        )
    return [*found.values(), batch]


def _first(patterns: list[re.Pattern[str]], text: str) -> str | None:
    for pattern in patterns:
        if found := pattern.search(text):
            return found[1]
    return None


if __name__ == "__main__":
    alone("scoring", __doc__, measure, ROWS)
