"""`onnxstack models ps`, `load` and `unload`: the models in the memory of running engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from server.cli_options import ConfigOption, DataOption, console, print_table, settings_of, size_text

if TYPE_CHECKING:
    from backends.config import EngineSettings
    from backends.engine.remote import RemoteModels

PATIENCE_S = 5.0
"""Seconds that an engine may take to answer at all."""

ProviderOption = Annotated[
    str | None, typer.Option(help="Id of the provider whose engine is meant, if several.", show_default=False)
]
AddressOption = Annotated[
    str | None, typer.Option(help="Of an engine that no settings name, as given to `engine`.", show_default=False)
]
NameArgument = Annotated[str, typer.Argument(help="Name of a model that is here.")]


def ps(
    config: ConfigOption = None,
    data_dir: DataOption = None,
    provider: ProviderOption = None,
    address: AddressOption = None,
) -> None:
    """List what is loaded in the running engines, and what it does there."""
    table = Table("engine", "name", "size", "running", "waiting", "prefix cache", "idle", box=None, pad_edge=False)
    for engine, settings in _engines(config, data_dir, provider, address):
        with _models(engine, settings) as models:
            for model in models.list():
                idle = "" if model.idle_s is None else f"{model.idle_s:.0f} s"
                counts = str(model.running), str(model.waiting)
                table.add_row(engine, model.name, size_text(model.size), *counts, size_text(model.prefix_bytes), idle)
    print_table(table)


def load(
    name: NameArgument,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    provider: ProviderOption = None,
    address: AddressOption = None,
) -> None:
    """Load a model in the running engine, before a request has to wait for it."""
    from backends.errors import BadRequest

    engines = _engines(config, data_dir, provider, address)
    if len(engines) > 1:
        known = ", ".join(f"`{engine}`" for engine, _ in engines)
        raise BadRequest(f"several engines run, of {known}: name one with --provider")
    for engine, settings in engines:
        with _models(engine, settings) as models:
            models.load(name)
        console.print(f"{name}: loaded in engine `{engine}`", markup=False)


def unload(
    name: NameArgument,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    provider: ProviderOption = None,
    address: AddressOption = None,
) -> None:
    """Give up the memory of a model in every running engine that has it; its next request loads it again."""
    from backends.errors import UnknownReference

    refused: UnknownReference | None = None
    done = False
    for engine, settings in _engines(config, data_dir, provider, address):
        with _models(engine, settings) as models:
            try:
                models.unload(name)
            except UnknownReference as error:
                refused = error
                continue
        done = True
        console.print(f"{name}: unloaded in engine `{engine}`", markup=False)
    if refused is not None and not done:
        raise refused


def _engines(
    config: ConfigOption, data_dir: DataOption, provider: str | None, address: str | None
) -> list[tuple[str, EngineSettings]]:
    """The engines that are meant, at least one. Raises BadRequest, Unavailable."""
    from backends.errors import BadRequest, Unavailable
    from server.engine import at_address
    from server.engines import running_engines
    from server.logs import configure_logs

    settings = settings_of(config, data_dir=data_dir)
    configure_logs(settings.log.model_copy(update={"level": "error"}))  # the connection's own words are for servers
    if address is not None:
        return [(address, at_address(address, settings.engine))]
    found = list(running_engines(settings.backends))
    chosen = [(engine, where) for engine, where in found if provider in (None, engine)]
    if found and not chosen:
        known = ", ".join(sorted(f"`{engine}`" for engine, _ in found))
        raise BadRequest(f"no engine of provider `{provider}`; there are those of {known}")
    if not chosen:
        raise Unavailable(
            f"no engine runs for {settings.home}: start `onnxstack serve`, or name an engine with --address or "
            "engine.address",
            retry_after_s=None,
        )
    return chosen


@contextmanager
def _models(engine: str, settings: EngineSettings) -> Iterator[RemoteModels]:
    """The models of an engine that answers. Raises Unavailable: none does."""
    from backends.engine.address import endpoint_of
    from backends.engine.client import EngineConnection
    from backends.engine.remote import RemoteModels
    from backends.errors import Unavailable

    connection = EngineConnection(endpoint_of(settings), first_patience_s=PATIENCE_S)
    try:
        try:
            connection.ask("device", timeout_s=PATIENCE_S)
        except Unavailable as error:
            raise Unavailable(
                f"engine `{engine}` at {settings.address} does not answer: {error.message}", retry_after_s=None
            ) from error
        yield RemoteModels(connection)
    finally:
        connection.close()
