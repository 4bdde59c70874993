"""The directory in which all worker processes of one master keep their metrics.

prometheus_client chooses its storage when it is imported, so the directory must be in the environment before. A master
holds a lock in its directory; directories without a holder are left over from a kill and are removed.

prometheus_client maps sparse files into memory: the first touch of a page for which the disk has no room kills the
process with SIGBUS. So each worker fills its files with zeros before prometheus_client opens them.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "metrics-"
KINDS = ("counter", "histogram", "gauge_livesum")
"""Of metric, as in the names of the files: those that `server/metrics.py` uses."""
FILE_BYTES = 1024 * 1024  # prometheus_client's own; our label values are few enough never to need more

log = logging.getLogger(__name__)


class MetricsDirectory:
    """One master's directory: made and locked by the constructor, named in `VARIABLE` by `announce`."""

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        for left_over in parent.glob(f"{PREFIX}*"):
            if not _is_held(left_over):
                shutil.rmtree(left_over, ignore_errors=True)
        # Locked before it gets its name, so that nobody takes it for left over.
        unnamed = Path(tempfile.mkdtemp(prefix="new-", dir=parent))
        self._lock = os.open(unnamed / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = unnamed.rename(parent / f"{PREFIX}{unnamed.name.removeprefix('new-')}")

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

    def remove(self) -> None:
        """Remove the directory and its lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _is_held(directory: Path) -> bool:
    try:
        descriptor = os.open(directory / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
