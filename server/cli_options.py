"""Options that several verbs share, and what they lead to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from server.settings import Settings, load_settings

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file (YAML). Also ONNXSTACK_CONFIG.", show_default=False)
]
DataOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Directory of everything the server keeps.", show_default=False)
]

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """A table on a terminal; plain, tab-separated columns for other programs elsewhere."""
    if console.is_terminal:
        console.print(table)
    else:
        for row in zip(*(column.cells for column in table.columns), strict=True):
            typer.echo("\t".join(str(cell) for cell in row))


def size_text(count: int) -> str:
    """Bytes, for people."""
    return f"{count / 1e6:.0f} MB" if count >= 1_000_000 else f"{count / 1e3:.0f} kB"


def nested(overrides: dict[str, Any]) -> dict[str, Any]:
    """`{"server.port": 1}` -> `{"server": {"port": 1}}`, without members that are None."""
    tree: dict[str, Any] = {}
    for path, value in overrides.items():
        if value is not None:
            *sections, name = path.split(".")
            place = tree
            for section in sections:
                place = place.setdefault(section, {})
            place[name] = value
    return tree


def settings_of(config: Path | None, **overrides: Any) -> Settings:
    """The settings in force. Raises InvalidSettings."""
    return load_settings(config, environ=os.environ, overrides=nested(overrides))
