"""`onnxstack serve`: gets the models, starts gunicorn, says when it answers, and ends with it.

gunicorn runs as a child in a session of its own, so that Ctrl-C reaches this process only and becomes an orderly drain.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType

from server.processes import PARENT_VARIABLE, READY_VARIABLE, Ready
from server.settings import DELIMITER, PREFIX, Settings
from server.settings_file import InvalidSettings

COMMAND = (sys.executable, "-m", "gunicorn", "-c", "python:server.gunicorn_conf", "server.main:app()")


def check_port(host: str, port: int) -> None:
    """Raises InvalidSettings when the address cannot be listened on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InvalidSettings(
            [f"cannot listen on {host}:{port}: {error.strerror}; choose another with server.host and server.port"]
        ) from None


def environment_of(overrides: Mapping[str, object], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a child sees the same settings. overrides: `{"server.port": 8321}`."""
    variables = {PREFIX + path.upper().replace(".", DELIMITER): str(value) for path, value in overrides.items()}
    return {**environ, **variables}


def serve(settings: Settings, environ: Mapping[str, str], announce: Callable[[list[Ready]], None]) -> int:
    """Run until stopped; the exit code of gunicorn. Calls `announce` once every worker answers.

    environ: of the child; must lead to the same settings. Must be called in the main thread.
    """
    reading, writing = os.pipe()
    child = subprocess.Popen(  # noqa: S603 - a fixed command
        COMMAND,
        env={**environ, READY_VARIABLE: str(writing), PARENT_VARIABLE: str(os.getpid())},
        pass_fds=(writing,),
        start_new_session=True,
    )
    os.close(writing)
    stops = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stops
        stops += 1
        if child.returncode is None:
            child.send_signal(signal.SIGTERM if stops == 1 else signal.SIGINT)

    def pass_on(number: int, frame: FrameType | None) -> None:
        if child.returncode is None:
            child.send_signal(number)

    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: stop, signal.SIGUSR1: pass_on}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    # Waits in a thread: the pipe stays open in the workers, so its end would not tell that the master has gone.
    threading.Thread(
        target=_wait_until_ready, args=(reading, settings.server.workers, announce), name="readiness", daemon=True
    ).start()
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if stops and code == -signal.SIGTERM else abs(code)


def _wait_until_ready(reading: int, workers: int, announce: Callable[[list[Ready]], None]) -> None:
    ready: list[Ready] = []
    rest = b""
    while len(ready) < workers:
        data = os.read(reading, 65536)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        ready += [Ready.decode(line) for line in lines]
    if len(ready) >= workers:
        announce(ready)
    os.close(reading)
