"""Configuration of gunicorn: `gunicorn -c python:server.gunicorn_conf 'server.main:app()'`.

Everything comes from our settings; options on gunicorn's own command line win. The application is never preloaded: the
inference engine and LanceDB keep threads, which do not survive a fork.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from server.engines import Engines
from server.jobs import JobRunner
from server.logs import JoinedLogger, configure_logs
from server.metrics_files import MetricsDirectory
from server.processes import end_with_starter
from server.settings import load_settings
from server.settings_file import InvalidSettings


def _refuse(error: InvalidSettings) -> NoReturn:
    sys.exit("\n".join(f"error: {problem}" for problem in error.problems))


try:
    _settings = load_settings(environ=os.environ)
except InvalidSettings as error:
    _refuse(error)
configure_logs(_settings.log)

wsgi_app = "server.main:app()"
bind = [f"{_settings.server.host}:{_settings.server.port}"]
workers = _settings.server.workers
reuse_port = workers > 1  # each worker listens for itself: see server/worker.py
worker_class = "server.worker.StackWorker"
backlog = _settings.server.backlog
keepalive = _settings.server.keepalive_s
timeout = _settings.server.worker_timeout_s
graceful_timeout = _settings.server.graceful_timeout_s
forwarded_allow_ips = ",".join(_settings.server.proxies)
preload_app = False
control_socket_disable = True
logger_class = JoinedLogger
accesslog = None
proc_name = "onnxstack"
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a heartbeat file must not wait for a disk


_metrics: MetricsDirectory | None = None
_engines: Engines | None = None
_jobs: JobRunner | None = None


def on_starting(server: Any) -> None:
    """Before the first worker: everything that only one process may do."""
    global _metrics, _engines, _jobs
    from server.prepare import prepare_state, start_engines, start_jobs
    from server.serve import check_port

    addresses = [address for address in server.address if isinstance(address, tuple)]
    try:
        _settings.check_exposure(host for host, _ in addresses)  # here, since gunicorn's own options may have moved it
        for host, port in addresses:  # with reuse_port a second server would not fail but share the connections
            check_port(host, port)
    except InvalidSettings as error:
        _refuse(error)
    end_with_starter()
    _engines = start_engines(_settings)  # first, so that their imports and ours go on side by side
    prepare_state(_settings)
    _jobs = start_jobs(_settings)
    _metrics = MetricsDirectory(_settings.backends.home / "run")
    _metrics.announce()


def when_ready(server: Any) -> None:
    """The arbiter is about to begin its loop: look after the keepers where it looks after its workers, each second and
    whenever a child ends. It has no hook for that. Nothing of it may run beside the loop, which forks."""
    manage_workers = server.manage_workers

    def manage_workers_and_keepers() -> None:
        for kept in (_engines, _jobs):
            if kept is not None:
                kept.revive()
        manage_workers()

    server.manage_workers = manage_workers_and_keepers


def post_fork(server: Any, worker: Any) -> None:
    """In a new worker, before it imports anything."""
    if _metrics is not None:
        _metrics.reserve(os.getpid())


def child_exit(server: Any, worker: Any) -> None:
    """A worker has ended: its gauges no longer count."""
    if _metrics is not None:
        _metrics.forget(worker.pid)


def on_exit(server: Any) -> None:
    """The master ends; its workers have ended before."""
    if _jobs is not None:
        _jobs.stop()
    if _engines is not None:
        _engines.stop()
    if _metrics is not None:
        _metrics.remove()
