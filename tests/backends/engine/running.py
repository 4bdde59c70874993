"""Engines for tests: in a process of their own, as `onnxstack engine` runs them, and on in-memory parts in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.config import EngineSettings
from backends.engine.address import Endpoint
from backends.engine.client import EngineConnection
from backends.engine.parts import EngineParts
from backends.engine.remote import RemoteTextGenerator
from backends.engine.server import EngineServer
from backends.errors import StackError
from backends.memory.classifier import MemoryClassifier
from backends.memory.embedder import MemoryEmbedder
from backends.memory.generator import MemoryTextGenerator
from backends.onnx.scheduler import SchedulerStats
from tests.server.processes import until
from tests.servers import ROOT

RELEASE = "1.2.3"
DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """An engine that is or was ready at `address`. log: the file with everything it printed."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def engine_process(
    directory: Path, models: Path, settings: EngineSettings | None = None, **environment: str
) -> Iterator[EngineProcess]:
    """`onnxstack engine` in `directory`, when it is ready; it must end with code 0 unless it was killed."""
    address = environment.pop("address", f"ipc://{directory / 'engine'}")
    log = directory / "engine.log"
    given = {} if settings is None else settings.model_dump(exclude_unset=True)
    variables = {
        "ONNXSTACK_DATA_DIR": str(directory / "data"),
        "ONNXSTACK_MODELS_DIR": str(models),
        **{f"ONNXSTACK_ENGINE__{name.upper()}": str(value) for name, value in given.items()},
        **environment,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ONNXSTACK_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", "engine", "--address", address],
            cwd=ROOT,
            env={**inherited, **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: process.poll() is not None or "engine ready" in log.read_text(), "engine", DEADLINE_S)
        assert process.poll() is None, log.read_text()
        yield EngineProcess(address, process, log)
    finally:
        process.terminate()
        code = process.wait(DEADLINE_S)
        assert code in (0, -9), log.read_text()


@contextmanager
def connected(endpoint: Endpoint | str, **options: Any) -> Iterator[EngineConnection]:
    """A connection for the length of a block."""
    connection = EngineConnection(endpoint if isinstance(endpoint, Endpoint) else Endpoint(endpoint), **options)
    try:
        yield connection
    finally:
        connection.close()


def memory_parts(generator: MemoryTextGenerator | None = None) -> EngineParts:
    """Parts that answer at once: the real scheduler over a model that repeats what it was told."""
    return EngineParts(
        generator or MemoryTextGenerator({"echo"}),
        MemoryEmbedder({"words"}),
        lambda kind: ["echo"] if kind == "llm" else ["words"],
        lambda: "cpu: in memory",
        MemoryClassifier({"guard"}),
    )


@contextmanager
def served(endpoint: Endpoint, parts: EngineParts | None = None) -> Iterator[EngineServer]:
    """An engine on in-memory parts in this process."""
    server = EngineServer(endpoint, parts or memory_parts(), release=RELEASE)
    try:
        yield server
    finally:
        server.close()


def stats_of(connection: EngineConnection) -> SchedulerStats:
    """The counters of the engine's only loaded model; waits for a connection that has just been opened."""
    until_welcome(connection)
    loaded: Mapping[str, SchedulerStats] = RemoteTextGenerator(connection).stats()
    return next(iter(loaded.values())) if loaded else SchedulerStats()


def until_welcome(connection: EngineConnection) -> None:
    """Wait for an engine."""

    def there() -> bool:
        try:
            connection.check()
        except StackError:
            return False
        return True

    until(there, "engine", DEADLINE_S)
