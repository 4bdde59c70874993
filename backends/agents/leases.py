"""Tells the store, as long as a turn runs, that the process that runs it is alive."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from backends.errors import StackError
from backends.ports import AgentStore

log = logging.getLogger(__name__)
_PER_LEASE = 3


class Leases:
    """The turns that run in this process. One thread renews them all, from the first turn on."""

    def __init__(self, store: AgentStore, lease_s: float) -> None:
        self.lease_s = lease_s
        self._store = store
        self._lock = threading.Lock()
        self._held: dict[str, Callable[[], None]] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self, turn_id: str, lost: Callable[[], None]) -> None:
        """Renew the lease of a turn from now on; `lost` is called if somebody else has the session."""
        with self._lock:
            self._held[turn_id] = lost
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agent leases", daemon=True)
                self._thread.start()

    def drop(self, turn_id: str) -> None:
        """The turn has ended."""
        with self._lock:
            self._held.pop(turn_id, None)

    def close(self) -> None:
        """Renew nothing any more."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def renew(self) -> None:
        """Renew all, and tell of those that are lost."""
        with self._lock:
            held = dict(self._held)
        if not held:
            return
        kept = self._store.renew(list(held), self.lease_s)
        for turn_id in held.keys() - kept:
            with self._lock:
                lost = self._held.pop(turn_id, None)
            if lost is not None:  # it has not ended meanwhile
                lost()

    def _run(self) -> None:
        while not self._closed.wait(self.lease_s / _PER_LEASE):
            try:
                self.renew()
            except StackError as error:
                log.warning("leases of agent turns are not renewed: %s", error)
