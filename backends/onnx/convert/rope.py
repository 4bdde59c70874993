"""Rotary position embedding tables, with the scaling rules that long-context models use.

Rotary embedding: Su et al., arXiv:2104.09864. Linear scaling: Chen et al., arXiv:2306.15595. The "llama3" rule:
https://github.com/meta-llama/llama-models/blob/main/models/llama3/model.py (`apply_scaling`). LongRoPE: Ding et al.,
arXiv:2402.13753.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.onnx.convert.quantise import Float32


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Slow waves are slowed by `factor`, fast ones kept, those between blended.

    original_context: tokens of the first training stage. low/high_frequency_factor: `original_context` divided by the
    wavelength, in tokens, below which a wave counts as slow and above which as fast.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int


@dataclass(frozen=True, slots=True)
class Rope:
    """base: theta of the paper. linear: positions are divided by it. divisors: one per wave, divides its frequency,
    [width / 2] (GGUF stores the llama3 rule this way, LongRoPE is given this way). magnitude: what LongRoPE
    multiplies rotated queries and keys by."""

    base: float
    linear: float = 1.0
    llama3: Llama3Scaling | None = None
    divisors: NDArray[np.floating[Any]] | None = None
    magnitude: float = 1.0

    def frequencies(self, width: int) -> NDArray[np.float64]:
        """Radians per token of each wave, float64 [width / 2]; width: numbers of a head that are rotated."""
        plain = self.base ** -(np.arange(0, width, 2, dtype=np.float64) / width)
        if self.llama3 is not None:
            plain = _llama3(plain, self.llama3)
        if self.divisors is not None:
            plain = plain / self.divisors
        return np.asarray(plain / self.linear, np.float64)

    def tables(self, width: int, positions: int) -> tuple[Float32, Float32]:
        """cos and sin of every angle, times `magnitude`, float32 [positions, width / 2]."""
        frequencies = self.frequencies(width)
        cos, sin = (np.empty((positions, width // 2), np.float32) for _ in range(2))
        for start in range(0, positions, 65536):  # float64 angles of a million positions would take half a gigabyte
            angles = np.arange(start, min(start + 65536, positions))[:, None] * frequencies
            cos[start : start + 65536] = np.cos(angles) * self.magnitude
            sin[start : start + 65536] = np.sin(angles) * self.magnitude
        return cos, sin


def longrope_magnitude(stretch: float, original_context: int) -> float:
    """What LongRoPE multiplies rotated queries and keys by when the context is `stretch` times the original one."""
    return math.sqrt(1 + math.log(stretch) / math.log(original_context)) if stretch > 1 else 1.0


def _llama3(frequencies: NDArray[np.float64], rule: Llama3Scaling) -> NDArray[np.float64]:
    waves = rule.original_context * frequencies / (2 * math.pi)
    span = rule.high_frequency_factor - rule.low_frequency_factor
    keep = np.clip((waves - rule.low_frequency_factor) / span, 0.0, 1.0)
    return np.asarray(frequencies * (keep + (1 - keep) / rule.factor), np.float64)
