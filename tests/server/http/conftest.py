"""A real server on a real socket: uvicorn in a thread, the whole HTTP layer, handlers of the package or of the test."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
import uvicorn
import uvloop

from backends.config import TelemetrySettings
from backends.telemetry.tracing import Tracing
from generated.operations import Operation
from server.http.app import HttpApplication, create_app, handler_of
from server.http.connection import TimedHttpProtocol
from server.http.options import HttpOptions

DEADLINE_S = 20.0


class Parts:
    """Backends of which only the services matter here."""

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}
        self.remote: dict[str, Any] = {}
        self.tracing = Tracing(TelemetrySettings(enabled=False))

    def services(self) -> dict[str, Any]:
        return self.named

    def upstreams(self) -> dict[str, Any]:
        return self.remote


@dataclass
class Running:
    """A server that answers at `url`."""

    app: HttpApplication
    host: str
    port: int
    client: httpx.Client
    loop: asyncio.AbstractEventLoop
    parts: Parts

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=DEADLINE_S)

    def raw(self, request: bytes) -> bytes:
        """Send bytes as they are, return all that comes until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(request)
            received = bytearray()
            while data := connection.recv(65536):
                received += data
        return bytes(received)

    def get_raw(self, target: str, method: str = "GET", headers: str = "") -> tuple[int, dict[str, str], bytes]:
        """A request whose target no client library has touched: status, headers, body."""
        answer = self.raw(
            f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n".encode("latin-1")
        )
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:])
        return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, body


@dataclass
class Observed:
    """An Observer that keeps what it is told."""

    requests: list[tuple[str, str, int]] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    started: int = 0

    def request_started(self) -> None:
        self.started += 1

    def request_ended(self, operation: str, method: str, status: int, duration_s: float) -> None:
        self.requests.append((operation, method, status))

    def stream_started(self, operation: str) -> None:
        self.streams.append(f"+{operation}")

    def stream_ended(self, operation: str) -> None:
        self.streams.append(f"-{operation}")


Serve = Callable[..., Running]


@contextmanager
def serving(
    options: HttpOptions | None = None,
    handlers: dict[str, Callable[..., Any]] | None = None,
    *,
    observer: Any = None,
    extra_routes: Any = None,
    headers: dict[str, str] | None = None,
) -> Iterator[Running]:
    """The server, until the block ends. handlers: operation id -> function, instead of those of the package."""

    def find(operation: Operation) -> Any:
        return (handlers or {}).get(operation.operation_id) or handler_of(operation)

    parts = Parts()
    options = options or HttpOptions(worker_threads=16, stream_limit=8, short_threads=4)
    app = create_app(parts, options, find_handler=find, observer=observer, extra_routes=extra_routes)  # type: ignore[arg-type]
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http=TimedHttpProtocol.with_timeouts(options.header_timeout_s, options.write_timeout_s),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    started = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        original = server.startup

        async def startup(sockets: Any = None) -> None:
            await original(sockets)
            started.set()

        server.startup = startup  # type: ignore[method-assign]
        await server.serve([listening])

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the loop that the product runs on
            runner.run(main())

    thread = threading.Thread(target=run, name="server")
    thread.start()
    try:
        assert started.wait(DEADLINE_S), "the server did not start"
        host, port = listening.getsockname()[:2]
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=DEADLINE_S, headers=headers) as client:
            yield Running(app, host, port, client, loops[0], parts)
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)
        listening.close()
        app.close()
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers that end with the test."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(serving(*args, **kwargs))


@pytest.fixture(scope="module")
def plain() -> Iterator[Running]:
    """One server of the module with the handlers of the package and no backends."""
    with serving() as running:
        yield running


@pytest.fixture
def small() -> HttpOptions:
    """Small limits."""
    return replace(HttpOptions(), worker_threads=6, stream_limit=2, short_threads=2, short_queue=4)


@pytest.fixture
def observed() -> Observed:
    return Observed()
