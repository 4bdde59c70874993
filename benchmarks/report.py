"""Medians, spreads and ratios, as a table for people and as JSON for machines."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.table import Table


@dataclass(slots=True)
class Row:
    """One measured figure: its samples in `unit`, and the peer's in the same run."""

    name: str
    unit: str
    ours: list[float]
    peer_name: str = ""
    peer: list[float] = field(default_factory=list)
    goal: str = ""

    @property
    def ratio(self) -> float | None:
        """Median of ours over the median of the peer's."""
        return statistics.median(self.ours) / statistics.median(self.peer) if self.peer else None


def _spread(samples: list[float]) -> str:
    """Median and range."""
    if not samples:
        return "-"
    middle = statistics.median(samples)
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 3
    return f"{middle:.{digits}f}  ({min(samples):.{digits}f} .. {max(samples):.{digits}f})"


def show(rows: list[Row], json_file: Path | None) -> None:
    """Print the table; write the samples to `json_file` when given."""
    table = Table(title=f"onnxstack benchmarks, {os.cpu_count()} cores, Python {platform.python_version()}")
    for column in ("measure", "unit", "onnxstack: median (range)", "peer", "peer: median (range)", "ratio", "goal"):
        table.add_column(column)
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}x"
        table.add_row(row.name, row.unit, _spread(row.ours), row.peer_name, _spread(row.peer), ratio, row.goal)
    Console(width=160).print(table)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1))


class Section(Protocol):
    """Figures about `rows` rows, each sampled `repeat` times."""

    def __call__(self, *, repeat: int, rows: int) -> list[Row]: ...


def alone(name: str, description: str | None, section: Section, rows: int) -> None:
    """One section as a program: `python -m benchmarks.NAME [--rows N] [--repeat N] [--json FILE]`."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--repeat", type=int, default=5, help="samples of each figure (default 5)")
    parser.add_argument("--json", type=Path, default=None, help="also write all samples to this file")
    options = parser.parse_args()
    show(section(repeat=options.repeat, rows=options.rows), options.json)
