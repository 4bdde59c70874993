"""Claims jobs, has them worked on, shows that they live, and ends those that were cancelled or died.

A claim is lost by silence: a runner that watches another's job for `SILENT_S` seconds without a new heartbeat takes it
over. Each counts by its own monotonic clock, so that no jump of the time of day takes a job from who works on it.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from backends.config import JobSettings
from backends.errors import StackError
from backends.jobs.records import CANCELLED, Job, JobKey, JobKind
from backends.ports import JobStore

log = logging.getLogger(__name__)

TICK_S = 0.25
BEAT_S = 1.0
SILENT_S = 6.0
STOP_S = 2.0
"""What a cancelled job gets to end by itself."""
MAX_ATTEMPTS = 3
"""Attempts at a job whose process died in each."""


class Execution(Protocol):
    """One attempt at a job, under way."""

    def ended(self) -> str | None:
        """None while it runs, else how it ended: for the log, and for the client of a job that died."""

    def stop(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it now, as far as that can be done."""


Start = Callable[[str], Execution]
"""Begins to work on the job that the claimant of this name holds."""


def limits_of(settings: JobSettings) -> dict[JobKind, int]:
    """How many jobs of each kind one runner works on at once."""
    return {"eval": settings.evaluations, "post_training": settings.trainings}


@dataclass
class _Held:
    job: Job
    execution: Execution
    beat_at: float
    stopped_at: float | None = None


class Runner:
    """Works on jobs until it is told to stop. limits: how many of each kind at once."""

    def __init__(
        self,
        store: JobStore,
        start: Start,
        limits: Mapping[JobKind, int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._start = start
        self._limits = limits
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._watched: dict[JobKey, tuple[int, float]] = {}
        self._watched_at = -BEAT_S

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; then running jobs are ended and left to the next runner."""
        while not stop.is_set():
            try:
                self.tick()
            except StackError as error:  # the database is away; it may come back
                log.warning("jobs wait: %s", error)
            stop.wait(TICK_S)
        self._leave()

    def tick(self) -> None:
        """Look at everything once. Raises Unavailable, StorageFull."""
        for claimant, held in list(self._held.items()):
            self._attend(claimant, held)
        silent = self._silent()
        while (kinds := self._free_kinds()) and self._take(kinds, silent):
            pass

    def _attend(self, claimant: str, held: _Held) -> None:
        how = held.execution.ended()
        now = self._clock()
        if how is not None:
            self._after(claimant, held, how)
            del self._held[claimant]
        elif held.stopped_at is not None:
            if now - held.stopped_at >= STOP_S:
                held.execution.kill()
        elif now - held.beat_at >= BEAT_S:
            held.beat_at = now
            job = self._store.beat(claimant)
            if job is None or job.cancel_requested:
                held.stopped_at = now
                held.execution.stop()

    def _after(self, claimant: str, held: _Held, how: str, *, leaving: bool = False) -> None:
        """Write down the end of an attempt that did not do so itself. leaving: it was we who ended it."""
        job = self._store.claimed(claimant)
        if job is None:
            return
        if job.cancel_requested:
            self._store.finish(claimant, reason=CANCELLED)
        elif leaving:
            self._store.release(claimant, counts=False)
        elif job.attempt >= MAX_ATTEMPTS:
            log.error("job %s has failed in %d attempts: %s", job.job_id, job.attempt, how)
            self._store.finish(claimant, reason=f"{how}, in attempt {job.attempt} of {MAX_ATTEMPTS}")
        else:
            log.warning("job %s is tried again: %s", job.job_id, how)
            self._store.release(claimant)

    def _free_kinds(self) -> list[JobKind]:
        running = [held.job.kind for held in self._held.values()]
        return [kind for kind, limit in self._limits.items() if running.count(kind) < limit]

    def _silent(self) -> dict[JobKey, int]:
        """The jobs of others whose heartbeats have stopped, as far as this runner has watched."""
        now = self._clock()
        if now - self._watched_at >= BEAT_S:
            self._watched_at = now
            ours = {held.job.key for held in self._held.values()}
            beats = self._store.heartbeats(list(self._limits))
            self._watched = {
                key: known if (known := self._watched.get(key)) is not None and known[0] == count else (count, now)
                for key, count in beats.items()
                if key not in ours
            }
        return {key: count for key, (count, since) in self._watched.items() if now - since >= SILENT_S}

    def _take(self, kinds: list[JobKind], silent: Mapping[JobKey, int]) -> bool:
        claimant = uuid.uuid4().hex
        job = self._store.claim(claimant, kinds, silent)
        if job is None:
            return False
        self._watched.pop(job.key, None)
        if job.cancel_requested:
            self._store.finish(claimant, reason=CANCELLED)
        elif job.attempt > MAX_ATTEMPTS:
            self._store.finish(claimant, reason=f"its runner died in each of {MAX_ATTEMPTS} attempts")
        else:
            self._held[claimant] = _Held(job, self._start(claimant), self._clock())
        return True

    def _leave(self) -> None:
        for held in self._held.values():
            held.execution.stop()
        deadline = self._clock() + STOP_S
        for claimant, held in self._held.items():
            while held.execution.ended() is None and self._clock() < deadline + STOP_S:
                if self._clock() >= deadline:
                    held.execution.kill()
                time.sleep(0.02)
            if held.execution.ended() is None:  # a thread that does not heed: its claim is lost by silence
                continue
            try:
                self._after(claimant, held, "the server stopped", leaving=True)
            except StackError as error:  # whoever watches takes it over when it falls silent
                log.warning("job %s stays claimed: %s", held.job.job_id, error)
        self._held.clear()
