"""Background work on the tables: index what is large, fold in its tail, compact, clean up, delete what is expired.

A search by vector over rows outside its index costs about 1 ms per 1000 rows, one small fragment about 0.1 ms and one
further part of the index about 0.5 ms (384 dimensions, 2 cores); building it anew takes 30 s per 100,000 rows. So the
tail is folded in as a further part when it is long, and the whole is built anew when it has many parts. A search by
words over 1000 rows outside its index costs 14 ms; that index is there from the first row and takes its tail in 30 ms.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from backends.config import VectorSettings
from backends.errors import NotFound, StackError
from backends.lance.database import LanceDatabase
from backends.lance.lease import MaintenanceLease

if TYPE_CHECKING:
    from backends.lance.table import ChunkTable

log = logging.getLogger(__name__)

PARTITION_ROWS = 1_000_000
MAX_PARTS = 4
MAX_SMALL_FRAGMENTS = 32
MIN_TAIL, MAX_TAIL = 1000, 4000
REBUILD_SHARE = 20  # a rebuild may take one part in twenty of the time
SWEEP_S = 60.0
KEEP_VERSIONS = timedelta(minutes=10)
CLOSE_S = 5.0

Step = Literal["none", "optimize", "build", "build text"]


@dataclass(frozen=True, slots=True)
class TableState:
    """What decides about a table. indexed: rows in the index, None without one; parts: of the index.

    text_unindexed: rows outside the index of words, None without one.
    """

    rows: int
    fragments: int
    indexed: int | None = None
    unindexed: int = 0
    parts: int = 0
    text_unindexed: int | None = 0


def next_step(state: TableState, index_rows: int, *, may_rebuild: bool = True) -> Step:
    """What a table needs now; "none" when it is in order."""
    if state.text_unindexed is None:  # an older release made the table, or a kill ended its making
        return "build text"
    if state.indexed is None:
        if state.rows >= index_rows:
            return "build"
        crumbled = state.fragments > MAX_SMALL_FRAGMENTS or state.text_unindexed >= MIN_TAIL
        return "optimize" if crumbled else "none"
    if may_rebuild and (2 * state.unindexed > state.indexed or state.parts > MAX_PARTS):
        return "build"
    tail = min(max(MIN_TAIL, state.indexed // 50), MAX_TAIL)
    full_fragments = state.parts + state.rows // PARTITION_ROWS
    if max(state.unindexed, state.text_unindexed) >= tail or state.fragments - full_fragments > MAX_SMALL_FRAGMENTS:
        return "optimize"
    return "none"


@dataclass(slots=True)
class _Memory:
    """What this process remembers of a table. Times are of the injected monotonic clock, in seconds."""

    version: int = -1
    looked_at: float = float("-inf")
    changed_at: float | None = None
    built_at: float = float("-inf")
    build_s: float = 0.0


class Maintainer:
    """Keeps the tables of a database fast. One process per location does the work; the others stand by.

    now: decides what is expired. clock: monotonic seconds. keep_versions: how long a reader may use an old version.
    """

    def __init__(
        self,
        database: LanceDatabase[ChunkTable],
        settings: VectorSettings,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
        keep_versions: timedelta = KEEP_VERSIONS,
    ) -> None:
        self._database = database
        self._settings = settings
        self._now = now
        self._clock = clock
        self._keep_versions = keep_versions
        self._lease = MaintenanceLease(database.directory)
        self._working = threading.Lock()
        self._memories: dict[str, _Memory] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look after all tables every `maintenance_s` seconds until `close`."""
        self._thread = threading.Thread(target=self._loop, name="lance-maintenance", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin no more work. A call that is running goes on until the database is closed."""
        self._stopped.set()

    def close(self) -> None:
        """Stop, and let another process take over. What was not committed is not there."""
        self.stop()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        self._lease.release()

    def maintain(self, name: str) -> list[Step]:
        """Bring one table in order now; the steps that were done, none when another process is the maintainer.

        Raises:
            NotFound: no such table. StorageFull. Unavailable.
        """
        if not self._lease.acquire():
            return []
        with self._working:
            return self._maintain(name)

    def maintain_all(self) -> None:
        """Bring every table in order that changed, or was not looked at for a minute.

        Where there are tables, also a process that stands by opens LanceDB, so that no request waits for its import.
        """
        if not self._database.in_use():
            return
        self._database.load()
        if not self._lease.acquire():
            return
        names = self._database.names()
        for gone in self._memories.keys() - set(names):
            del self._memories[gone]
        for name in names:
            if self._stopped.is_set():
                return
            try:
                self._look(name)
            except NotFound:
                continue
            except StackError as error:
                if not self._stopped.is_set():
                    log.warning("maintenance of vector table %s failed: %s", name, error)

    def _loop(self) -> None:
        while not self._stopped.wait(self._settings.maintenance_s):
            try:
                self.maintain_all()
            except StackError as error:
                if not self._stopped.is_set():
                    log.warning("maintenance of the vector tables failed: %s", error)
            except Exception:
                # The thread must outlive what nobody foresaw: without it every table gets slow.
                log.exception("maintenance of the vector tables failed")

    def _look(self, name: str) -> None:
        memory = self._memories.setdefault(name, _Memory())
        version = self._version(name)
        if version == memory.version and self._clock() - memory.looked_at < SWEEP_S:
            return
        with self._working:
            self._maintain(name)

    def _maintain(self, name: str) -> list[Step]:
        memory = self._memories.setdefault(name, _Memory())
        self._database.commit(name, lambda table: table.delete_expired(self._now()))
        steps: list[Step] = []
        while not self._stopped.is_set():
            may_rebuild = self._clock() - memory.built_at >= REBUILD_SHARE * memory.build_s
            state = self._database.run(name, lambda table: table.state())
            step = next_step(state, self._settings.index_rows, may_rebuild=may_rebuild)
            if step == "none" or step in steps:
                break
            self._do(name, step, state, memory)
            steps.append(step)
        self._clean_up(name, memory)
        memory.looked_at = self._clock()
        return steps

    def _do(self, name: str, step: Step, state: TableState, memory: _Memory) -> None:
        started = self._clock()
        if step == "build text":
            self._database.commit(name, lambda table: table.build_text_index())
            return
        if step == "build":
            self._database.commit(name, lambda table: table.build_index())
            memory.built_at = self._clock()
            memory.build_s = memory.built_at - started
        self._database.commit(name, lambda table: table.optimize())
        log.info("vector table %s: %s of %d rows took %.1f s", name, step, state.rows, self._clock() - started)

    def _clean_up(self, name: str, memory: _Memory) -> None:
        """Remove old versions once the readers that could use them are gone."""
        version = self._version(name)
        due = memory.changed_at is not None and (
            self._clock() - memory.changed_at >= self._keep_versions.total_seconds()
        )
        if due:
            # What is removed must be replaced by a version that is on disk and that is itself too young to be removed:
            # `optimize` may first make another, which is on disk only later.
            self._database.commit(name, lambda table: table.renew())
            self._database.commit(name, lambda table: table.optimize(self._keep_versions))
            version, memory.changed_at = self._version(name), None
        elif version != memory.version and memory.changed_at is None:
            memory.changed_at = self._clock()
        memory.version = version

    def _version(self, name: str) -> int:
        return self._database.run(name, lambda table: table.version())
