"""`onnxstack db`: the schema of the state's database."""

from __future__ import annotations

import typer

from server.cli_options import ConfigOption, DataOption, console, errors, settings_of
from server.redaction import mask

app = typer.Typer(no_args_is_help=True, help="The database of the state: check it, upgrade it.")


@app.command()
def upgrade(config: ConfigOption = None, data_dir: DataOption = None) -> None:
    """Bring the database to the revision of this release, whole or not at all."""
    from backends.store import migrate

    settings = settings_of(config, data_dir=data_dir)
    settings.home.mkdir(parents=True, exist_ok=True)
    before = migrate.upgrade(settings.database)
    if before.status == "current":
        console.print(f"{mask(settings.database)}: already at revision {before.newest}")
    else:
        console.print(f"{mask(settings.database)}: from revision {before.found or 'none'} to {before.newest}")


@app.command()
def check(config: ConfigOption = None, data_dir: DataOption = None) -> None:
    """Say whether this release can use the database; exit code 1 if not."""
    from backends.store import migrate

    settings = settings_of(config, data_dir=data_dir)
    state = migrate.check(settings.database)
    (console if state.status == "current" else errors).print(f"{mask(settings.database)}: {state}")
    if state.status != "current":
        raise typer.Exit(1)
