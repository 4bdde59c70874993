"""What the scores of all rows add up to."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from backends.ports import JsonObject
from generated.models import AggregationFunctionType

Score = float | str | None
"""Of one row; a judge's is the text that its pattern found, None where it found none."""


def aggregate(scores: Sequence[Score], functions: Sequence[AggregationFunctionType]) -> JsonObject:
    """Each function's result below its name twice: `{"average": {"average": 0.5}}`, the form that clients read."""
    return {function: _RESULTS[function](scores) for function in functions}


def _numbers(scores: Sequence[Score]) -> list[float]:
    """The scores that are finite numbers, or texts of such; what a judge left open counts for nothing."""
    numbers = []
    for score in scores:
        try:
            number = float(score) if score is not None else math.nan
        except ValueError:
            continue
        if math.isfinite(number):
            numbers.append(number)
    return numbers


def _average(scores: Sequence[Score]) -> JsonObject:
    numbers = _numbers(scores)
    return {"average": math.fsum(numbers) / len(numbers) if numbers else None}


def _median(scores: Sequence[Score]) -> JsonObject:
    numbers = _numbers(scores)
    return {"median": statistics.median(numbers) if numbers else None}


def _categorical_count(scores: Sequence[Score]) -> JsonObject:
    return {"categorical_count": dict(Counter("null" if score is None else str(score) for score in scores))}


def _accuracy(scores: Sequence[Score]) -> JsonObject:
    correct = sum(number == 1.0 for number in _numbers(scores))
    return {"accuracy": correct / len(scores), "num_correct": float(correct), "num_total": len(scores)}


_RESULTS = {
    "average": _average,
    "median": _median,
    "categorical_count": _categorical_count,
    "accuracy": _accuracy,
}
