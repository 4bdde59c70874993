"""The process that has jobs worked on: `python -m server.job_runner`, kept alive by `server/keeper.py`."""

from __future__ import annotations

import os
import signal
import sys
import threading

from backends.errors import StackError
from backends.jobs.executions import ProcessExecution
from backends.jobs.ray_executions import RayCluster, check_shared
from backends.jobs.runner import Runner, Start, limits_of
from backends.store import SqlJobStore, open_database
from server.logs import configure_logs, get_logger
from server.processes import PARENT_VARIABLE, RESERVED, end_with_starter
from server.settings import PREFIX, Settings, load_settings

COMMAND = (sys.executable, "-m", "server.job")


def main() -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    end_with_starter()
    settings = load_settings(environ=os.environ)
    configure_logs(settings.log)
    try:
        store = SqlJobStore(open_database(settings.database))
        start = _on_ray(settings) if settings.jobs.runner == "ray" else _here()
    except StackError as error:
        get_logger("onnxstack").error("jobs wait", reason=str(error))
        sys.exit(1)
    Runner(store, start, limits_of(settings.jobs)).run(stop)
    store.close()


def _here() -> Start:
    environ = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
    return lambda claimant: ProcessExecution((*COMMAND, claimant), environ)


def _on_ray(settings: Settings) -> Start:
    """Raises Misconfigured, Unavailable."""
    check_shared(settings.backends)
    # Only settings: the engines that this server has started listen on this machine alone.
    environ = {name: value for name, value in os.environ.items() if name.startswith(PREFIX) and name not in RESERVED}
    return RayCluster(settings.jobs.ray_address, COMMAND, environ, PARENT_VARIABLE).start


if __name__ == "__main__":
    main()
