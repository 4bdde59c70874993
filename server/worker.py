"""The gunicorn worker: uvicorn that drains before it stops.

SIGTERM, in seconds of `graceful_timeout` G:
    0      readiness answers 503, new work is refused with 503, running requests go on, the socket stays open
    G - 4  what still runs is ended: streams get a final error event, other calls a 503
    G - 2  what does not react is cut
    G      gunicorn kills
A worker in which nothing runs stops at once.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, ClassVar, Protocol

from gunicorn.arbiter import Arbiter
from uvicorn.config import Config
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from backends.processes import end_with_parent
from server.http.connection import TimedHttpProtocol
from server.processes import report_ready

END_RUNNING_S = 4.0
CUT_S = 2


class Drainable(Protocol):
    """What the worker needs of the application."""

    def models(self) -> Sequence[tuple[str, str]]: ...
    def start_drain(self) -> None: ...
    def running(self) -> int: ...
    async def end_running(self) -> None: ...
    def close(self) -> None: ...


class DrainingServer(Server):
    """A uvicorn server that, told to stop, first lets running requests finish for up to `drain_s` seconds."""

    def __init__(self, config: Config, app: Drainable, drain_s: float, master: int) -> None:
        super().__init__(config)
        self._master = master
        self._app = app
        self._drain_s = drain_s
        self._deadline: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start to drain; a second SIGINT or a SIGQUIT stops at once. Runs as a signal handler: sets flags only."""
        again = self._deadline is not None and sig == signal.SIGINT
        if self._deadline is None:
            self._deadline = time.monotonic() + self._drain_s
        if again or sig == signal.SIGQUIT:
            self.force_exit = self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second."""
        if self._deadline is not None:
            self._app.start_drain()
            if self._app.running() == 0:
                self.should_exit = True
            elif time.monotonic() >= self._deadline:
                await self._app.end_running()
                self.should_exit = True
        return await super().on_tick(counter)

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        end_with_parent(self._master)  # gunicorn's own workers look after that, uvicorn's do not
        if self.started:
            report_ready(self._app.models())


def own_listener(shared: socket.socket, backlog: int) -> socket.socket:
    """A listener of this worker alone at the address of the shared one, which must have SO_REUSEPORT.

    The kernel spreads connections evenly over such listeners. From a shared one the worker that is awake first takes
    nearly all of them, which for long streams means one busy worker beside idle ones.
    """
    own = socket.socket(shared.family, shared.type)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    own.setblocking(False)
    own.bind(shared.getsockname())
    own.listen(backlog)
    return own


class StackWorker(UvicornWorker):  # type: ignore[misc]  # comes without types
    """uvicorn on uvloop and our httptools protocol, with our own access lines and an orderly end."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "ws": "none",
        "lifespan": "auto",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": CUT_S,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The base class pointed it at gunicorn's handlers, of which there are none.
        logger = logging.getLogger("uvicorn.error")
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)

    _server: DrainingServer | None = None

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        self.config.http = TimedHttpProtocol.with_timeouts(self.wsgi.header_timeout_s, self.wsgi.write_timeout_s)
        server = self._server = DrainingServer(
            self.config, self.wsgi, max(1.0, self.cfg.graceful_timeout - END_RUNNING_S), self.ppid
        )
        self._install_sigquit_handler()
        try:
            # Plain sockets: uvicorn closes them, and gunicorn's wrappers would log that as an error.
            shared = [wrapper.sock for wrapper in self.sockets]
            own = [own_listener(each, self.cfg.backlog) for each in shared if self.cfg.reuse_port]
            await server.serve(sockets=shared + own)
        finally:
            self.wsgi.close()
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGQUIT: end now, without waiting for what runs."""
        self.alive = False
        if self._server is not None:
            self._server.handle_exit(sig, frame)
