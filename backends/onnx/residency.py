"""Which models are in memory: loaded when first asked for, least recently used ones given up for new ones.

A model that somebody uses, or that is busy, is never given up. Loading one model holds up neither requests for others
nor their loading; a model that fails to load fails only those who asked for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, cast

import structlog

from backends.errors import Overloaded, StackError, Unavailable

log = structlog.get_logger(__name__)


class Resident(Protocol):
    """A loaded model."""

    @property
    def busy(self) -> bool:
        """Whether it works for somebody right now."""

    def close(self) -> None:
        """Release its memory."""


R = TypeVar("R", bound=Resident)


@dataclass(slots=True, eq=False)
class _Entry(Generic[R]):
    """A model that is loaded, or being loaded until `ready` is set.

    size: bytes. on: the model without which it cannot be. users: calls that hold it. used: when the last one let go, by
    the clock.
    """

    size: int
    on: str | None = None
    model: R | None = None
    error: StackError | None = None
    users: int = 0
    used: float = 0.0
    ready: threading.Event = field(default_factory=threading.Event)

    @property
    def idle(self) -> bool:
        return self.users == 0 and self.model is not None and not self.model.busy


@dataclass(frozen=True, slots=True)
class Residence:
    """A model's place in memory. model: None while it is being loaded. size: bytes. users: calls that hold it. idle_s:
    seconds since the last of them; None while the model is in use."""

    model: Resident | None
    size: int
    users: int
    idle_s: float | None


class Residency:
    """The loaded models of one engine process.

    budget_bytes: of all models together, counted as the size of their files; 0 for no limit. keep_alive_s: seconds
    after which an idle model is given up; 0 keeps it until its room is needed. clock: seconds.
    """

    def __init__(
        self, budget_bytes: int = 0, keep_alive_s: float = 0.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._budget = budget_bytes
        self._keep_alive_s = keep_alive_s
        self._clock = clock
        self._entries: dict[str, _Entry[Resident]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        if keep_alive_s:
            threading.Thread(target=self._expire, name="residency", daemon=True).start()

    @contextmanager
    def use(
        self,
        name: str,
        size: Callable[[], int],
        load: Callable[[], R],
        *,
        on: Callable[[], str | None] = lambda: None,
        whole: Callable[[], int] | None = None,
    ) -> Iterator[R]:
        """Hold a model, loaded by this call if it is not there. size: bytes. on: the model that `load` loads and builds
        on, which stays as long as this one and counts once for all who do so. whole: bytes of both, where there is such
        a one. They are asked for only if the model has to be loaded.

        Raises:
            Overloaded: the models in use leave no room for it. Unavailable: it is larger than all the room there is, or
            the engine is closed. StackError: what `size` or `load` raised.
        """
        entry, mine, given_up = self._enter(name, size, on, whole or size)
        try:
            for other, model in given_up:
                log.info("model unloaded", model=other, reason="room for another", by=name)
                model.close()
            if mine:
                self._load(name, entry, load)
            entry.ready.wait()
            if entry.model is None:
                raise entry.error or Unavailable("the model could not be loaded")
            yield cast(R, entry.model)
        finally:
            with self._lock:
                entry.users -= 1
                entry.used = self._clock()
                if entry.on in self._entries:
                    self._entries[entry.on].used = entry.used

    def loaded(self) -> dict[str, Resident]:
        """The loaded models by name."""
        with self._lock:
            return {name: entry.model for name, entry in self._entries.items() if entry.model is not None}

    def residences(self) -> dict[str, Residence]:
        """The models that are loaded or being loaded, by name."""
        with self._lock:
            now = self._clock()
            return {
                name: Residence(entry.model, entry.size, entry.users, now - entry.used if entry.idle else None)
                for name, entry in self._entries.items()
            }

    def unload(self, name: str) -> bool:
        """Give a model up; False if it is not loaded. Raises Overloaded: it is in use."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                return False
            if not self._is_idle(name):
                raise Overloaded(f"model {name} is in use; try again when it is idle")
            given_up = self._give_up(name)
        for other, model in given_up:
            model.close()
            log.info("model unloaded", model=other, reason="asked for")
        return True

    def close(self) -> None:
        """Release everything and load nothing any more."""
        self._closed.set()
        with self._lock:
            entries, self._entries = self._entries, {}
        for entry in entries.values():
            if entry.model is not None:
                entry.model.close()

    def _enter(
        self, name: str, size: Callable[[], int], on: Callable[[], str | None], whole: Callable[[], int]
    ) -> tuple[_Entry[Resident], bool, list[tuple[str, Resident]]]:
        """The entry, held; whether the caller has to load it; models that were given up for it."""
        if (entry := self._hold(name)) is not None:
            return entry, False, []
        bytes_, base = size(), on()
        self._check_fits(name, whole(), base)
        with self._lock:
            if (entry := self._entries.get(name)) is not None:  # another was faster
                entry.users += 1
                return entry, False, []
            given_up = self._make_room(name, bytes_, base)
            entry = self._entries[name] = _Entry(bytes_, base, users=1)
            return entry, True, given_up

    def _hold(self, name: str) -> _Entry[Resident] | None:
        with self._lock:
            if self._closed.is_set():
                raise Unavailable("the engine is closed")
            entry = self._entries.get(name)
            if entry is not None:
                entry.users += 1
            return entry

    def _check_fits(self, name: str, size: int, on: str | None) -> None:
        """Refuse what no waiting would make room for. size: bytes, with the model that it is built on."""
        if self._budget and size > self._budget:
            base = "" if on is None else f" with its base {on}"
            raise Unavailable(
                f"model {name}{base} takes {size // 1_000_000} MB, engine.memory_mb is {self._budget // 1_000_000}",
                retry_after_s=None,
            )

    def _make_room(self, name: str, size: int, on: str | None) -> list[tuple[str, Resident]]:
        if not self._budget:
            return []
        given_up: list[tuple[str, Resident]] = []
        room = self._budget - sum(entry.size for entry in self._entries.values())
        idle = sorted((n for n in self._entries if n != on and self._is_idle(n)), key=lambda n: self._entries[n].used)
        if room + sum(self._entries[n].size for n in idle) < size:
            raise Overloaded(f"the models in use leave no room for {name}; try again later")
        for other in idle:
            if room >= size:
                break
            if other in self._entries:  # not given up with what it was built on
                before = sum(entry.size for entry in self._entries.values())
                given_up += self._give_up(other)
                room += before - sum(entry.size for entry in self._entries.values())
        return given_up

    def _is_idle(self, name: str) -> bool:
        """Whether neither the model nor one that is built on it is in use."""
        others = [other for other, entry in self._entries.items() if entry.on == name]
        return self._entries[name].idle and all(map(self._is_idle, others))

    def _give_up(self, name: str) -> list[tuple[str, Resident]]:
        """Take out an idle model and first those that are built on it."""
        given_up = []
        for other in [other for other, entry in self._entries.items() if entry.on == name]:
            given_up += self._give_up(other)
        return [*given_up, (name, cast(Resident, self._entries.pop(name).model))]

    def _load(self, name: str, entry: _Entry[Resident], load: Callable[[], Resident]) -> None:
        started = self._clock()
        log.info("model loading", model=name, megabytes=entry.size // 1_000_000)
        try:
            model = load()
        except BaseException as error:
            entry.error = error if isinstance(error, StackError) else None
            with self._lock:
                self._entries.pop(name, None)
            entry.ready.set()
            raise
        with self._lock:
            closed = self._entries.get(name) is not entry
            entry.model = None if closed else model
        entry.ready.set()
        if closed:
            model.close()
            raise Unavailable("the engine is closed")
        log.info("model loaded", model=name, seconds=round(self._clock() - started, 2))

    def _expire(self) -> None:
        while not self._closed.wait(min(1.0, self._keep_alive_s)):
            self.expire()

    def expire(self) -> None:
        """Give up what has been idle for longer than `keep_alive_s`."""
        with self._lock:
            now = self._clock()
            limit = now - self._keep_alive_s
            for name, entry in self._entries.items():
                if not self._is_idle(name):  # a long answer is use, though nobody holds the model for it
                    entry.used = now
            bases = {entry.on for entry in self._entries.values()}
            names = [n for n, e in self._entries.items() if n not in bases and e.idle and e.used < limit]
            given_up = [pair for name in names for pair in self._give_up(name)]
        for name, model in given_up:
            model.close()
            log.info("model unloaded", model=name, reason="idle")
