"""An engine on in-memory parts, and a connection to it through a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backends.engine.address import Endpoint
from backends.engine.client import EngineConnection
from backends.engine.server import EngineServer
from backends.memory.generator import MemoryTextGenerator
from tests.backends.engine.running import RELEASE, connected, memory_parts, served


@pytest.fixture
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Endpoint:
    """A socket's address that is short enough."""
    return Endpoint(f"ipc://{tmp_path_factory.mktemp('e') / 's'}")


@pytest.fixture
def generator() -> MemoryTextGenerator:
    """The one behind `server`; the server closes it."""
    return MemoryTextGenerator({"echo"})


@pytest.fixture
def server(endpoint: Endpoint, generator: MemoryTextGenerator) -> Iterator[EngineServer]:
    with served(endpoint, memory_parts(generator)) as server:
        yield server


@pytest.fixture
def connection(endpoint: Endpoint, server: EngineServer) -> Iterator[EngineConnection]:
    with connected(endpoint, release=RELEASE) as connection:
        yield connection
