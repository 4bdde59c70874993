"""The rows of the benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.evaluation.benchmarks import BENCHMARKS, rows_of
from backends.ports import JsonObject


@pytest.fixture(scope="session")
def benchmark_rows(wheels: dict[str, Path]) -> dict[str, list[JsonObject]]:
    """The rows of each benchmark. Do not change them."""
    return {
        name: rows_of(benchmark, wheels[benchmark.package.name], lambda *_: None)
        for name, benchmark in BENCHMARKS.items()
    }
