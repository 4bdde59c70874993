"""Attempts at jobs on the machines of a Ray cluster.

Ray finds a machine with room and tells when it is lost; the table of jobs stays the truth about what is to be done.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from backends.config import BackendSettings
from backends.errors import Misconfigured, Unavailable

_END_S = 2.0


def check_shared(settings: BackendSettings) -> None:
    """Return if machines other than this one see the same state. Raises Misconfigured."""
    if not settings.database.startswith("postgres"):
        raise Misconfigured("jobs on Ray need state in PostgreSQL: set database_url", where="jobs.runner")
    local = [] if "://" in settings.vector_url else ["vector_url (or data_dir)"]
    local.append("models_dir (or data_dir)")
    if not settings.jobs.shared_directories:
        raise Misconfigured(
            f"jobs on Ray read and write directories: {', '.join(local)}. Put them where every machine sees them "
            "under the same path, and say so with jobs.shared_directories",
            where="jobs.shared_directories",
        )


class RayCluster:
    """A connection to a cluster, for starting attempts.

    command: begins an attempt, given the claimant's name after it. environ: of the command, over that of Ray's worker.
    parent_variable: where the command learns whose end ends it.

    Raises:
        Misconfigured: ray is not installed. Unavailable: no cluster answers at the address.
    """

    def __init__(
        self, address: str, command: Sequence[str], environ: Mapping[str, str], parent_variable: str, cpus: float = 1
    ) -> None:
        try:
            import ray
        except ImportError:
            raise Misconfigured("jobs on Ray need onnxstack's extra [ray]", where="jobs.runner") from None
        try:
            ray.init(address=address or "auto", log_to_driver=False, configure_logging=False)
        except Exception as error:  # Ray's own classes differ with how the cluster is away
            raise Unavailable("no Ray cluster answers", internal=str(error)) from error
        self._ray = ray
        self._task = ray.remote(max_retries=0, num_cpus=cpus)(run_command)
        self._command = tuple(command)
        self._environ = dict(environ)
        self._parent_variable = parent_variable

    def start(self, claimant: str) -> RayExecution:
        """Begin an attempt as soon as a machine has room for it."""
        reference = self._task.remote((*self._command, claimant), self._environ, self._parent_variable)
        return RayExecution(self._ray, reference)

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


class RayExecution:
    """A task of Ray that runs one command."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray = ray
        self._reference = reference

    def ended(self) -> str | None:
        done, _ = self._ray.wait([self._reference], timeout=0)
        if not done:
            return None
        try:
            code = self._ray.get(self._reference)
        except self._ray.exceptions.RayError as error:
            return f"its machine or its worker there has ended ({type(error).__name__})"
        return f"its process ended with exit code {code}"

    def stop(self) -> None:
        self._ray.cancel(self._reference, force=False)

    def kill(self) -> None:
        self._ray.cancel(self._reference, force=True)


def run_command(command: Sequence[str], environ: Mapping[str, str], parent_variable: str) -> int:
    """Run the command on this machine to its end and return its exit code; ended early, it ends the command first."""
    process = subprocess.Popen(  # noqa: S603 - a command of ours
        command, env={**os.environ, **environ, parent_variable: str(os.getpid())}
    )
    try:
        return process.wait()
    except BaseException:  # Ray cancels a task by an exception of its choice
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
