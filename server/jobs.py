"""The runner of jobs that a server starts for itself, in a process of its own with a keeper, as its engines have."""

from __future__ import annotations

import os
import subprocess
import sys

from backends.config import MEMORY_URL, BackendSettings
from backends.jobs.ray_executions import check_shared
from server.processes import PARENT_VARIABLE

STOP_S = 10.0


class JobRunner:
    """Starts it at once where the settings want one. Raises Misconfigured."""

    def __init__(self, settings: BackendSettings) -> None:
        self._keeper: subprocess.Popen[bytes] | None = None
        if settings.jobs.runner not in ("process", "ray") or settings.database == MEMORY_URL:
            return
        if settings.jobs.runner == "ray":
            check_shared(settings)
        environ = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
        command = (sys.executable, "-m", "server.keeper", "the runner of jobs", "server.job_runner")
        # In a session of its own, so that Ctrl-C reaches the server alone.
        self._keeper = subprocess.Popen(command, env=environ, start_new_session=True)  # noqa: S603

    def stop(self) -> None:
        """End it in order; what it works on is left to the next."""
        if self._keeper is None:
            return
        self._keeper.terminate()
        try:
            self._keeper.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
