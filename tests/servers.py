"""Fixtures that start the real server, as `onnxstack serve` does, on a free port with a data directory of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROFILES = Path(__file__).parent / "profiles"
START_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server process that answers at `url`. log: the file with everything it printed."""

    url: str
    process: subprocess.Popen[bytes]
    data: Path
    log: Path

    def stop(self, timeout_s: float = 60) -> int:
        """SIGTERM and wait; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(data: Path, *, profile: Path | None = None, **environment: str) -> RunningServer:
    """Start a server and return when it is ready. Fails the test with the server's output when it does not start."""
    port = free_port()
    log = data / "server.log"
    data.mkdir(parents=True, exist_ok=True)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ONNXSTACK_")}
    settings = {"ONNXSTACK_SERVER__PORT": str(port), "ONNXSTACK_DATA_DIR": str(data), **environment}
    if profile is not None:
        settings["ONNXSTACK_CONFIG"] = str(profile)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", "serve"],
            cwd=ROOT,
            env={**inherited, **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = RunningServer(f"http://127.0.0.1:{port}", process, data, log)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/livez", timeout=1):
            return server
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"the server did not start:\n{log.read_text()[-4000:]}")


@contextlib.contextmanager
def running(
    data: Path, *, profile: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[RunningServer]:
    """A server for the length of a block; it must end with code 0."""
    server = launch(data, profile=profile, **(environment or {}))
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="session")
def memory_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The whole server on in-memory providers: all registries work, generation is instant."""
    with running(tmp_path_factory.mktemp("memory-server"), profile=PROFILES / "memory.yaml") as server:
        yield server


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory, model_store: object) -> Iterator[RunningServer]:
    """The product as it comes: real models, SQLite, LanceDB."""
    root = str(getattr(model_store, "root"))  # noqa: B009
    with running(tmp_path_factory.mktemp("real-server"), environment={"ONNXSTACK_MODELS_DIR": root}) as server:
        yield server
