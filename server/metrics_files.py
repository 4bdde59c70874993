"""The directory in which all worker processes of one master keep their metrics.

prometheus_client chooses its storage when it is imported, so the directory must be in the environment before.

prometheus_client maps sparse files into memory: the first touch of a page for which the disk has no room kills the
process with SIGBUS. So each worker fills its files with zeros before prometheus_client opens them.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from server.held_directory import HeldDirectory

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "metrics-"
KINDS = ("counter", "histogram", "gauge_livesum")
"""Of metric, as in the names of the files: those that `server/metrics.py` uses."""
FILE_BYTES = 1024 * 1024  # prometheus_client's own; our label values are few enough never to need more

log = logging.getLogger(__name__)


class MetricsDirectory(HeldDirectory):
    """One master's directory: made and locked by the constructor, named in `VARIABLE` by `announce`."""

    def __init__(self, parent: Path) -> None:
        super().__init__(parent, PREFIX)

    def announce(self) -> None:
        """Name the directory in the environment, for processes forked from now on."""
        os.environ[VARIABLE] = str(self.path)

    def reserve(self, pid: int) -> None:
        """Take the room that the metrics of a process need; without room its metrics stay a danger to it."""
        for kind in KINDS:
            file = self.path / f"{kind}_{pid}.db"
            try:
                with file.open("xb") as output:
                    output.write(b"\0" * FILE_BYTES)
            except FileExistsError:  # of an earlier process with this id: its counters go on
                continue
            except OSError as error:
                file.unlink(missing_ok=True)
                log.warning("no room for metrics in %s: %s", self.path, error.strerror)

    def forget(self, pid: int) -> None:
        """Drop the live gauges of a process that has ended; its counters stay."""
        for file in self.path.glob(f"gauge_live*_{pid}.db"):
            file.unlink(missing_ok=True)
