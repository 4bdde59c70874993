"""Fair turns at something that serves one at a time: first come, first served, back to the end after each turn."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backends.context import CallContext
from backends.errors import Overloaded


class Turns:
    """A lock that goes round. Whoever wants another turn queues behind all who wait, so a call of a thousand runs
    delays a call of one run by a single run."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False

    def seat(self, context: CallContext) -> Seat:
        """A place from which one thread, on behalf of one call, asks for turn after turn."""
        return Seat(self, context)

    def _take(self, context: CallContext, wake: threading.Event) -> None:
        while True:
            wake.clear()
            context.check(self._now)  # after `clear`: a cancellation before it is seen here, one after it wakes
            with self._lock:
                if not self._taken:
                    self._taken = True
                    return
                self._waiting.append(wake)
            wake.wait(None if context.deadline is None else max(0.0, context.deadline - self._now()))
            with self._lock:
                handed_over = wake not in self._waiting  # `_pass_on` takes it out of the queue
                if not handed_over:
                    self._waiting.remove(wake)
            try:
                context.check(self._now)
            except BaseException:
                if handed_over:
                    self._pass_on()
                raise
            if handed_over:
                return
            # The wait ended a hair before the deadline: ask again.

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False


class Seat:
    """See `Turns.seat`."""

    def __init__(self, turns: Turns, context: CallContext) -> None:
        self._turns = turns
        self._context = context
        self._wake = threading.Event()
        context.cancellation.on_cancel(self._wake.set)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn and hold it.

        Raises:
            Cancelled, DeadlineExceeded: the call ended before its turn came.
        """
        self._turns._take(self._context, self._wake)
        try:
            yield
        finally:
            self._turns._pass_on()


class Admission:
    """At most `limit` calls inside; one more is refused at once, never queued."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._lock = threading.Lock()
        self._inside = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Be inside. Raises Overloaded."""
        with self._lock:
            if self._inside >= self._limit:
                raise Overloaded(f"{self._limit} {self._what} are already being served; try again later")
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
