"""The runner of jobs that a server starts for itself, in a process of its own with a keeper, as its engines have."""

from __future__ import annotations

from backends.config import MEMORY_URL, BackendSettings
from backends.jobs.ray_executions import check_shared
from server.kept_process import KeptProcess

STOP_S = 10.0


class JobRunner:
    """Starts it at once where the settings want one. Raises Misconfigured."""

    def __init__(self, settings: BackendSettings) -> None:
        self._kept: KeptProcess | None = None
        if settings.jobs.runner not in ("process", "ray") or settings.database == MEMORY_URL:
            return
        if settings.jobs.runner == "ray":
            check_shared(settings)
        self._kept = KeptProcess("the runner of jobs", "server.job_runner")

    def revive(self) -> None:
        """Start it again where it was killed with its keeper."""
        if self._kept is not None:
            self._kept.revive()

    def stop(self) -> None:
        """End it in order; what it works on is left to the next."""
        if self._kept is not None:
            self._kept.terminate()
            self._kept.wait(STOP_S)
