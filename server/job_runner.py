"""The process that has jobs worked on: `python -m server.job_runner`, kept alive by `server/keeper.py`."""

from __future__ import annotations

import os
import signal
import sys
import threading

from backends.errors import StackError
from backends.jobs.executions import ProcessExecution
from backends.jobs.runner import Runner, limits_of
from backends.store import SqlJobStore, open_database
from server.logs import configure_logs, get_logger
from server.processes import PARENT_VARIABLE, end_with_starter
from server.settings import load_settings


def main() -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    end_with_starter()
    settings = load_settings(environ=os.environ)
    configure_logs(settings.log)
    environ = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
    try:
        store = SqlJobStore(open_database(settings.database))
    except StackError as error:
        get_logger("onnxstack").error("jobs wait", reason=str(error))
        sys.exit(1)

    def start(claimant: str) -> ProcessExecution:
        return ProcessExecution((sys.executable, "-m", "server.job", claimant), environ)

    Runner(store, start, limits_of(settings.jobs)).run(stop)
    store.close()


if __name__ == "__main__":
    main()
