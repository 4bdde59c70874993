"""The command `onnxstack`.

Verbs import what they need when they run, so that `--help` and `version` answer at once. Deliberate errors become one
line on standard error: exit code 2 for settings and input, 1 for everything that went wrong later.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backends.errors import BadRequest, Misconfigured, StackError
from server import __version__, cli_config, cli_db, cli_models
from server.cli_options import ConfigOption, DataOption, console, errors, nested
from server.redaction import mask
from server.settings import CONFIG_VARIABLE, Settings, load_settings
from server.settings_file import InvalidSettings

if TYPE_CHECKING:
    from server.processes import Ready

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A Llama Stack server on ONNX Runtime and LanceDB.",
)
app.add_typer(cli_models.app, name="models")
app.add_typer(cli_db.app, name="db")
app.add_typer(cli_config.app, name="config")


@app.command()
def serve(
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default="8321")] = None,
    data_dir: DataOption = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.", show_default="1")] = None,
    pull: Annotated[bool, typer.Option(help="Get default models that are not here yet.")] = True,
) -> None:
    """Start the server. The first start gets the default models."""
    from server.prepare import missing_models
    from server.serve import check_port, environment_of
    from server.serve import serve as run

    overrides = {"server.host": host, "server.port": port, "data_dir": data_dir, "server.workers": workers}
    given = {path: value for path, value in overrides.items() if value is not None}
    settings = load_settings(config, environ=os.environ, overrides=nested(given))
    settings.check_exposure()
    check_port(settings.server.host, settings.server.port)
    if pull and (missing := missing_models(settings)):
        from backends.models.store import ModelStore
        from server.logs import configure_logs

        configure_logs(settings.log)
        for name in missing:
            with cli_models.shown_progress(name) as report:
                ModelStore(settings.models).pull(name, progress=report)
    environ = environment_of(given, os.environ)
    if config is not None:
        environ[CONFIG_VARIABLE] = str(config.expanduser().absolute())
    sys.exit(run(settings, environ, lambda ready: announce(settings, ready)))


def announce(settings: Settings, ready: list[Ready]) -> None:
    """Print where the server is, what it serves and how to call it."""
    from server.banner import banner

    typer.echo(banner(settings, ready[0].models))


@app.command()
def engine(
    config: ConfigOption = None,
    data_dir: DataOption = None,
    address: Annotated[
        str | None, typer.Option(help="Where to listen: ipc:///path or tcp://host:port.", show_default=False)
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="Id of the provider whose settings count, if several.", show_default=False)
    ] = None,
) -> None:
    """Run an inference engine for servers whose engine.address is this one's."""
    from server.engine import run_engine
    from server.logs import configure_logs

    settings = load_settings(config, environ=os.environ, overrides=nested({"data_dir": data_dir}))
    configure_logs(settings.log)
    run_engine(settings, provider, address)


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def codegen(context: typer.Context) -> None:
    """Run the code generator of the checkout: `onnxstack codegen [--check | report | stubs | diff OLD NEW]`."""
    if not (Path.cwd() / "codegen").is_dir():
        raise BadRequest("codegen works on a checkout: change to the directory that holds openapi.yaml and codegen/")
    command = [sys.executable, "-m", "codegen", *context.args]
    sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - the user's own words, no shell


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def conform(context: typer.Context) -> None:
    """Run the conformance kit, where it is installed: `onnxstack conform URL [options]`."""
    if importlib.util.find_spec("onnxstack_conformance") is None:
        raise BadRequest("the conformance kit is a package of its own: pip install ./conformance, or make conform URL=...")
    command = [sys.executable, "-m", "onnxstack_conformance", *context.args]
    sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - the user's own words, no shell


def main() -> None:
    """Entry point: errors as lines, never as tracebacks."""
    try:
        app()
    except InvalidSettings as error:
        for problem in error.problems:
            errors.print(f"error: {problem}", markup=False)
        sys.exit(2)
    except StackError as error:
        errors.print(f"error: {mask(str(error))}", markup=False)
        sys.exit(2 if isinstance(error, BadRequest | Misconfigured) else 1)
    except OSError as error:
        errors.print(f"error: {mask(str(error))}", markup=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
