"""Keeps a process alive: starts it, starts it again when it ends, and ends it in order.

Imports nothing but the standard library: the keeper is there to survive, and small.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
"""Between an end and the next start: nothing at first, then this, doubled with each end, up to the longest."""
STEADY_S = 60.0
"""A process that lived so long is started at once again."""
STOP_S = 15.0
"""What a process gets to end by itself after SIGTERM."""


class Keeper:
    """Runs `command` again and again until it is told to stop.

    ended: called with the exit code, negative for a signal, and the pause in seconds, each time that it ends by itself.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], ended: Callable[[int, float], None]) -> None:
        self._command = command
        self._environ = environ
        self._ended = ended
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Until SIGTERM or SIGINT, which end the process first. Must be called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        pauses = pause_lengths()
        while not self._stopping.is_set():
            started = time.monotonic()
            self._child = subprocess.Popen(self._command, env=self._environ)  # noqa: S603 - a command of ours
            if self._stopping.is_set():  # between the look and the start
                self._child.terminate()
            code = self._wait(self._child)
            if self._stopping.is_set():
                return
            if time.monotonic() - started >= STEADY_S:
                pauses = pause_lengths()
            pause = next(pauses)
            self._ended(code, pause)
            self._stopping.wait(pause)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()
        if self._child is not None and self._child.returncode is None:
            self._child.terminate()

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        """The exit code. Looks up every second, so that a process which does not heed SIGTERM is killed in time."""
        deadline = float("inf")
        while True:
            try:
                return child.wait(1.0)
            except subprocess.TimeoutExpired:
                if self._stopping.is_set():
                    deadline = min(deadline, time.monotonic() + STOP_S)
                if time.monotonic() >= deadline:
                    child.kill()


def pause_lengths() -> Iterator[float]:
    """Seconds to wait before each new start, without end."""
    yield 0.0
    pause = FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_S)
