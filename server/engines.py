"""The engines that a server starts for itself: one for each inference provider on ONNX Runtime that names no address.

Each has a keeper process (`server/keeper.py`) and listens in a directory of this user alone. The workers learn the
addresses from their environment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress

from backends.config import ENGINE_TYPE, INPROC, BackendSettings, EngineSettings, ProviderSettings
from server.held_directory import HeldDirectory, is_held
from server.kept_process import KeptProcess
from server.processes import ENGINES_VARIABLE

PREFIX = "engine-"
_LONGEST = len(f"{PREFIX}12345678/10000")
_OWNER_FILE = "engines.json"
"""In the directory of the sockets: `{"data_dir": ..., "engines": {provider id: address}}`, for who looks for them."""
STOP_S = 20.0
_OWN = ("", INPROC)
"""Addresses that mean no engine of somebody else."""


class Engines:
    """Starts them at once. Raises Misconfigured: the settings of the providers do not fit."""

    def __init__(self, settings: BackendSettings) -> None:
        from backends.engine.address import socket_parent
        from backends.onnx.session import choose_device, runtime_distribution
        from backends.providers import check_providers, engine_settings

        check_providers(settings)
        own = list(_own(settings))
        for _, entry in own:
            choose_device(engine_settings(settings, entry).device, runtime_distribution())
        self._kept: list[KeptProcess] = []
        self._directory: HeldDirectory | None = None
        if not own:
            return
        self._directory = HeldDirectory(socket_parent(settings.home / "run", _LONGEST), PREFIX)
        addresses = {entry.provider_id: f"ipc://{self._directory.path / str(index)}" for index, entry in own}
        os.environ[ENGINES_VARIABLE] = json.dumps(addresses)
        owner = {"data_dir": str(settings.home.resolve()), "engines": addresses}
        (self._directory.path / _OWNER_FILE).write_text(json.dumps(owner), "utf-8")
        self._kept += [
            KeptProcess("the engine", "server.engine", provider_id, address)
            for provider_id, address in addresses.items()
        ]

    def revive(self) -> None:
        """Start again what was killed with its keeper."""
        for kept in self._kept:
            kept.revive()

    def stop(self) -> None:
        """End them in order."""
        for kept in self._kept:
            kept.terminate()
        for kept in self._kept:
            kept.wait(STOP_S)
        if self._directory is not None:
            self._directory.remove()


def with_addresses(settings: BackendSettings, environ: Mapping[str, str]) -> BackendSettings:
    """The settings with the addresses of the engines that the server has started, where it has."""
    addresses = json.loads(environ.get(ENGINES_VARIABLE, "{}"))
    own = {index for index, _ in _own(settings)}
    providers = [
        entry.model_copy(update={"config": {**entry.config, "address": addresses[entry.provider_id]}})
        if index in own and entry.provider_id in addresses
        else entry
        for index, entry in enumerate(settings.providers)
    ]
    return settings.model_copy(update={"providers": tuple(providers)})


def running_engines(settings: BackendSettings) -> Iterator[tuple[str, EngineSettings]]:
    """The engines of these settings by provider: those that servers of this data directory have started and that have
    not ended, and those at an address of the settings, which may be there or not."""
    from backends.engine.address import socket_parent
    from backends.providers import engine_settings

    for entry in settings.providers:
        if entry.provider_type == ENGINE_TYPE and (engine := engine_settings(settings, entry)).address not in _OWN:
            yield entry.provider_id, engine
    for directory in sorted(socket_parent(settings.home / "run", _LONGEST).glob(f"{PREFIX}*")):
        if not is_held(directory):
            continue
        with suppress(FileNotFoundError):  # it ends or begins at this moment
            owner = json.loads((directory / _OWNER_FILE).read_text("utf-8"))
            if owner["data_dir"] == str(settings.home.resolve()):
                for provider_id, address in owner["engines"].items():
                    yield provider_id, settings.engine.model_copy(update={"address": address})


def runs_models(settings: BackendSettings) -> bool:
    """Whether any provider needs this machine's model store: an engine of its own, or one within the workers."""
    return any(
        entry.provider_type == ENGINE_TYPE and entry.config.get("address", settings.engine.address) in _OWN
        for entry in settings.providers
    )


def _own(settings: BackendSettings) -> Iterator[tuple[int, ProviderSettings]]:
    """The providers whose engines this server starts, with their places."""
    for index, entry in enumerate(settings.providers):
        if entry.provider_type == ENGINE_TYPE and not entry.config.get("address", settings.engine.address):
            yield index, entry
