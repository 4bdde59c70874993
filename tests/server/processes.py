"""What the tests of processes share: waiting with a deadline, raw HTTP on one connection, signals."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.servers import ROOT, free_port

Found = TypeVar("Found")
DEADLINE_S = 60.0


def until(look: Callable[[], Found | None], what: str, deadline_s: float = DEADLINE_S) -> Found:
    """What `look` finds, asked for until it is something true; fails the test after `deadline_s` seconds."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        with suppress(OSError, http.client.HTTPException):
            if found := look():
                return found
        time.sleep(0.02)
    raise AssertionError(f"no {what} within {deadline_s} s")


def get(url: str, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON at a URL, on a connection of its own."""
    request = urllib.request.Request(url, headers={"connection": "close", **(headers or {})})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def status_of(url: str) -> int:
    """The status of a GET, on a connection of its own."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@dataclass
class Gunicorn:
    """gunicorn with our configuration and the stub application."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def workers(self) -> set[int]:
        """Process ids of the workers that live."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {int(child) for child in children}

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


@contextmanager
def gunicorn(directory: Path, *, app: str = "tests.server.stub_app:app()", **settings: str) -> Iterator[Gunicorn]:
    """Bare gunicorn, as the deployment guide starts it, when it answers."""
    port, log = free_port(), directory / "gunicorn.log"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ONNXSTACK_")}
    environment = {
        **inherited,
        "ONNXSTACK_SERVER__PORT": str(port),
        "ONNXSTACK_DATA_DIR": str(directory / "data"),
        "ONNXSTACK_DATABASE_URL": "memory://",
        "ONNXSTACK_LOG__FORMAT": "json",
        "ONNXSTACK_ENGINE__ADDRESS": "inproc",  # the stub asks no engine
        **settings,
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:server.gunicorn_conf", app],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    server = Gunicorn(process, f"http://127.0.0.1:{port}", log)
    try:
        until(lambda: process.poll() is not None or status_of(f"{server.url}/livez"), "answer of gunicorn")
        assert process.poll() is None, log.read_text()
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(DEADLINE_S)
            finally:
                process.kill()


class Stream:
    """A streamed answer being read."""

    def __init__(self, url: str, path: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE_S)
        self._connection.request("POST", path)
        self.answer = self._connection.getresponse()

    def event(self) -> str:
        """The next event's data; "" at the end of the stream."""
        line = self.answer.readline().decode()
        if line:
            assert line.startswith("data: ") and line.endswith("\n"), line
            assert self.answer.readline() == b"\n"
        return line.removeprefix("data: ").removesuffix("\n")

    def rest(self) -> list[str]:
        """All events to the end; closes the connection."""
        try:
            return list(iter(self.event, ""))
        finally:
            self.answer.close()
            self._connection.close()


def lines_of(log: Path) -> list[dict[str, Any]]:
    """The JSON lines of a log; other lines are left out."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
