"""The filtering functions: which of one prompt's scored candidates are kept."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from backends.config import SyntheticSettings
from generated.models import FilteringFunction


def kept(
    scores: Sequence[float], function: FilteringFunction, settings: SyntheticSettings, draw: random.Random
) -> list[int]:
    """Positions that are kept, in their order. `scores`: finite, higher is better; ties go to the earlier."""
    best = sorted(range(len(scores)), key=lambda position: -scores[position])
    match function:
        case "none":
            chosen = best
        case "random":
            chosen = draw.sample(range(len(scores)), min(settings.keep, len(scores)))
        case "top_k":
            chosen = best[: settings.keep]
        case "top_p":
            chosen = _nucleus(scores, best, settings.top_p)
        case "top_k_top_p":
            chosen = _nucleus(scores, best[: settings.keep], settings.top_p)
        case "sigmoid":
            chosen = [position for position, score in enumerate(scores) if draw.random() < _sigmoid(score)]
    return sorted(chosen)


def _nucleus(scores: Sequence[float], best: Sequence[int], mass: float) -> list[int]:
    """The fewest of `best` that hold `mass` of their softmax."""
    if not best:
        return []
    weights = [math.exp(scores[position] - scores[best[0]]) for position in best]
    wanted, held = mass * math.fsum(weights), 0.0
    for count, weight in enumerate(weights, 1):
        held += weight
        if held >= wanted:
            return list(best[:count])
    return list(best)


def _sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))
