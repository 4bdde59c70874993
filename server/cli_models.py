"""`onnxstack models`: the models on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from server import cli_engines
from server.cli_options import ConfigOption, DataOption, console, errors, print_table, settings_of, size_text

if TYPE_CHECKING:
    from backends.models.progress import Progress as Report
    from backends.models.progress import Stage
    from backends.models.store import ModelStore
    from server.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Models: list, pull, show, remove; loaded ones: ps, load, unload.")
for verb in (cli_engines.ps, cli_engines.load, cli_engines.unload):
    app.command()(verb)

_STAGES = {
    "wait": "waiting for another pull",
    "fetch": "fetching",
    "check": "checking",
    "unpack": "unpacking",
    "convert": "converting",
    "store": "storing",
}


def _store(config: ConfigOption, data_dir: DataOption) -> ModelStore:
    from backends.models.store import ModelStore
    from server.logs import configure_logs

    settings = settings_of(config, data_dir=data_dir)
    configure_logs(settings.log)  # what the store has to say goes to standard error, never into a list
    return ModelStore(settings.models)


@app.command("list")
def list_models(config: ConfigOption = None, data_dir: DataOption = None) -> None:
    """List the models that are here, and those of the catalogue that could be pulled."""
    from backends.models.catalog import CATALOG

    store = _store(config, data_dir)
    stored = store.list()
    table = Table("name", "kind", "precision", "size", "licence", "state", box=None, pad_edge=False)
    for model in stored:
        manifest = model.manifest
        table.add_row(model.name, manifest.kind, manifest.precision, size_text(manifest.size), manifest.licence, "here")
    for known in CATALOG.values():
        if known.name not in {model.name for model in stored}:
            table.add_row(known.name, known.kind, "", "", known.licence, "not pulled")
    print_table(table)


@app.command()
def pull(
    reference: Annotated[
        str,
        typer.Argument(help="A name of the catalogue, hf:org/name, a GGUF file, a model folder, a PEFT folder."),
    ],
    name: Annotated[str | None, typer.Option(help="What to call it.", show_default=False)] = None,
    precision: Annotated[
        str | None, typer.Option(help="int8 (default), int4, fp16 or fp32.", show_default=False)
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Stored model that a LoRA adapter belongs to.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
) -> None:
    """Fetch, check and convert a model. Doing it again changes nothing."""
    from backends.errors import BadRequest
    from backends.models.manifest import Precision

    if precision is not None and precision not in get_args(Precision):
        raise BadRequest(f"precision {precision!r} is not known; use one of {', '.join(get_args(Precision))}")
    store = _store(config, data_dir)
    with shown_progress(name or reference) as report:
        model = store.pull(reference, name=name, precision=precision, base=base, progress=report)  # type: ignore[arg-type]
    manifest = model.manifest
    console.print(f"{model.name}: {manifest.precision}, {size_text(manifest.size)}, licence {manifest.licence}, ready")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a model that is here.")],
    config: ConfigOption = None,
    data_dir: DataOption = None,
) -> None:
    """Print the manifest of a model: source, licence, files with sha256, limits."""
    from backends.onnx.config import DecoderConfig, read_model_config

    model = _store(config, data_dir).get(name)
    manifest = model.manifest
    typer.echo(manifest.to_json(), nl=False)
    limits = manifest.metadata
    decoder = read_model_config(model.path)
    if isinstance(decoder, DecoderConfig):
        for providers, set_bits in _kv_bits(settings_of(config, data_dir=data_dir)):
            bits = set_bits or (16 if decoder.kv_dtype == "float16" else 32)
            each = 2 * decoder.layers * decoder.kv_heads * decoder.head_dim * bits // 8
            whole = each * limits.context_length
            errors.print(
                f"{providers}{size_text(manifest.size)} of files; KV cache: {each:,} bytes per token of each "
                f"sequence, {size_text(whole)} at the full {limits.context_length:,} tokens ({bits} bits a number)"
            )


def _kv_bits(settings: Settings) -> list[tuple[str, int]]:
    """`engine.kv_bits` of the providers on ONNX Runtime, each value once, with their names where they differ."""
    from backends.config import ENGINE_TYPE
    from backends.providers import check_providers, engine_settings

    check_providers(settings.backends)
    names: dict[int, list[str]] = {}
    for entry in settings.providers:
        if entry.provider_type == ENGINE_TYPE:
            names.setdefault(engine_settings(settings.backends, entry).kv_bits, []).append(entry.provider_id)
    if len(names) < 2:
        return [("", next(iter(names), settings.engine.kv_bits))]
    return [(f"{', '.join(providers)}: ", bits) for bits, providers in names.items()]


@app.command("rm")
def remove(
    name: Annotated[str, typer.Argument(help="Name of a model that is here.")],
    config: ConfigOption = None,
    data_dir: DataOption = None,
) -> None:
    """Delete a model's files. Servers that have it open keep their copy until they stop."""
    _store(config, data_dir).remove(name)
    console.print(f"{name}: removed")


@contextmanager
def shown_progress(model: str) -> Iterator[Report]:
    """A listener that draws a bar on a terminal and writes one line per stage elsewhere."""
    if not errors.is_terminal:
        last: Stage | None = None

        def tell(stage: Stage, done: int, total: int) -> None:
            nonlocal last
            if stage != last:
                last = stage
                size = f" ({size_text(total)})" if stage in ("fetch", "unpack") and total else ""
                errors.print(f"{model}: {_STAGES[stage]}{size}")

        yield tell
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors) as bars:
        tasks: dict[str, TaskID] = {}

        def draw(stage: Stage, done: int, total: int) -> None:
            if stage not in tasks:
                for task in tasks.values():
                    bars.update(task, total=1, completed=1)
                tasks[stage] = bars.add_task(f"{model}: {_STAGES[stage]}", total=total or None)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield draw
        for task in tasks.values():
            bars.update(task, total=1, completed=1)
