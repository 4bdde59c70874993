"""A process of the server that is always there: the gunicorn master starts its keeper, and another when that is killed.

The keeper (`server/keeper.py`) watches the process, which is what fails; the master watches the keeper, which hardly
ever does. A keeper that is killed takes its process along, so the next one finds nothing in its way for long.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from server.logs import get_logger
from server.processes import PARENT_VARIABLE

REST_S = 1.0
"""Least seconds between two starts, should a keeper end as soon as it begins."""


class KeptProcess:
    """Starts it at once. what: for the log. arguments: the module that is run, and its arguments.

    Must be made, revived and stopped in the same thread of the same process.
    """

    def __init__(self, what: str, *arguments: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._command = (sys.executable, "-m", "server.keeper", what, *arguments)
        self._clock = clock
        self._start()

    def revive(self) -> None:
        """Start another keeper if there is none; cheap when there is."""
        # The arbiter may have collected its exit code before us; then it counts as 0.
        if self._keeper.poll() is None or self._clock() < self._started + REST_S:
            return
        get_logger("onnxstack").error(f"the keeper of {self._what} has ended and is started again")
        self._start()

    def terminate(self) -> None:
        """Begin to end both in order."""
        self._keeper.terminate()

    def wait(self, timeout_s: float) -> None:
        """Return when the keeper has ended; kill it after `timeout_s` seconds."""
        try:
            self._keeper.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._keeper.kill()

    def _start(self) -> None:
        environ = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
        # In a session of its own, so that Ctrl-C reaches the server alone, which ends what it has started last.
        self._keeper = subprocess.Popen(self._command, env=environ, start_new_session=True)  # noqa: S603
        self._started = self._clock()
