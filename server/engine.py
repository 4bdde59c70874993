"""One inference engine in a process of its own: `onnxstack engine`, and what a keeper runs (`server/keeper.py`)."""

from __future__ import annotations

import os
import signal
import sys
import threading

from pydantic import ValidationError

from backends.config import ENGINE_TYPE, INPROC, EngineSettings, ProviderSettings
from backends.errors import BadRequest, StackError
from server import __version__
from server.logs import configure_logs, get_logger
from server.processes import end_with_starter
from server.settings import Settings, load_settings


def run_engine(settings: Settings, provider_id: str | None, address: str | None) -> None:
    """Serve the engine of a provider until SIGTERM or SIGINT. Must be called in the main thread.

    provider_id: None takes the only one of the type. address: None takes the one of the settings.

    Raises:
        BadRequest: no such provider, or no address that others can reach. Misconfigured: the settings do not fit.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    from backends.engine.address import endpoint_of
    from backends.engine.parts import open_parts
    from backends.engine.server import EngineServer
    from backends.providers import check_providers, engine_settings

    backends = settings.backends
    check_providers(backends)
    engine = engine_settings(backends, _provider(settings, provider_id))
    if address is not None:
        engine = at_address(address, engine)
    if engine.address in ("", INPROC):
        raise BadRequest("give an address that servers can reach: --address ipc:///path or --address tcp://host:port")
    endpoint = endpoint_of(engine)
    log = get_logger("onnxstack")
    with EngineServer(endpoint, open_parts(backends.models, engine)) as server:
        log.info("engine ready", address=engine.address, release=__version__)
        while not stop.wait(1.0):
            if not server.alive():  # its log says why; whoever keeps us starts the next
                sys.exit(1)
    log.info("engine stopped", address=engine.address)


def at_address(address: str, engine: EngineSettings) -> EngineSettings:
    """The settings with the address that an option gave. Raises BadRequest."""
    try:
        return EngineSettings.model_validate({**engine.model_dump(), "address": address})
    except ValidationError as error:
        raise BadRequest(f"--address {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _provider(settings: Settings, provider_id: str | None) -> ProviderSettings:
    found = [entry for entry in settings.providers if entry.provider_type == ENGINE_TYPE]
    chosen = [entry for entry in found if provider_id in (None, entry.provider_id)]
    if len(chosen) != 1:
        known = ", ".join(f"`{entry.provider_id}`" for entry in found) or "none"
        raise BadRequest(f"name one provider of type {ENGINE_TYPE} with --provider; the settings have {known}")
    return chosen[0]


def main() -> None:
    provider_id, address = sys.argv[1:]
    end_with_starter()
    settings = load_settings(environ=os.environ)
    configure_logs(settings.log)
    try:
        run_engine(settings, provider_id, address)
    except StackError as error:
        get_logger("onnxstack").error("the engine cannot start", reason=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
