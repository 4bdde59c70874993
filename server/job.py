"""One attempt at one job: `python -m server.job CLAIMANT`, started by the process of `server/job_runner.py`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

from backends.context import CancellationToken
from backends.errors import StackError
from backends.jobs.runner import STOP_S
from server import __version__
from server.logs import configure_logs, get_logger
from server.processes import end_with_starter
from server.settings import load_settings


def main() -> None:
    cancellation = CancellationToken()

    def stop(number: int, frame: FrameType | None) -> None:
        cancellation.cancel()
        ending = threading.Timer(STOP_S, os._exit, [1])  # where the work does not heed it
        ending.daemon = True
        ending.start()

    signal.signal(signal.SIGTERM, stop)
    end_with_starter()
    # Threads of torch that wait for each other by spinning take the cores from the engine, and a step takes many times
    # as long where other processes want them too. Read by the OpenMP library when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from backends.jobs.work import work_on
    from backends.jobs.works import WORKS, apis_of
    from backends.stack import open_backends
    from backends.store import SqlJobStore, open_database
    from server.engines import with_addresses

    settings = load_settings(environ=os.environ)
    configure_logs(settings.log)
    try:
        store = SqlJobStore(open_database(settings.database))
        job = store.claimed(sys.argv[1])
        store.close()
        if job is None:
            return
        backends = open_backends(
            with_addresses(settings.backends, os.environ), version=__version__, serves=False, apis=apis_of(job)
        )
    except StackError as error:
        get_logger("onnxstack").error("a job cannot start", reason=str(error))
        sys.exit(1)
    try:
        work_on(backends.jobs.store, sys.argv[1], backends, WORKS, cancellation)
    finally:
        backends.close()


if __name__ == "__main__":
    main()
