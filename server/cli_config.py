"""`onnxstack config`: what is in force, and whether it can be."""

from __future__ import annotations

from typing import Any

import typer
import yaml

from server.cli_options import ConfigOption, DataOption, console, settings_of
from server.redaction import mask
from server.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Settings: show what is in force, check a file.")


def effective(settings: Settings) -> dict[str, Any]:
    """Every setting with its value in force, secrets masked."""
    masked: dict[str, Any] = mask(settings.model_dump(mode="json"))
    return masked


@app.command()
def show(config: ConfigOption = None, data_dir: DataOption = None) -> None:
    """Print the effective settings as YAML, secrets masked."""
    text = yaml.safe_dump(effective(settings_of(config, data_dir=data_dir)), sort_keys=False, allow_unicode=True)
    typer.echo(text, nl=False)


@app.command()
def check(config: ConfigOption = None, data_dir: DataOption = None) -> None:
    """Read the settings as `serve` would; exit code 2 with one line per problem."""
    settings = settings_of(config, data_dir=data_dir)
    settings.check_exposure()
    from backends.providers import check_providers

    check_providers(settings.backends)
    console.print(f"settings are valid: {settings.server.url}, data in {settings.home}")
