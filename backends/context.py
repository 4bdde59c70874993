"""The call context: who asks, until when, under which trace, and how to stop.

Built once per request in `server/`, taken by every port method, and serialisable (`backends/wire.py`), so that a port
may be answered by another process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from backends.errors import Cancelled, DeadlineExceeded


class CancellationToken:
    """Tells the workers of one call that its caller has gone. Thread-safe; cancelling twice is cancelling once."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        """Set the token and run the callbacks, each once, in the calling thread."""
        with self._lock:
            if self._event.is_set():
                return
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Run `callback` on cancellation; at once if that has already happened. It must not raise or block."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def wait(self, timeout_s: float) -> bool:
        """Block until cancelled or `timeout_s` seconds have passed; True if cancelled."""
        return self._event.wait(timeout_s)


class Secrets(Mapping[str, str]):
    """The caller's provider keys. Prints as their number, so that no log, error or span can hold one."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, key: str) -> str:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Secrets(<{len(self)} hidden>)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class CallContext:
    """Everything about a call that is not its argument.

    request_id: the id the caller sees in `x-request-id` and in errors.
    principal: name of the API key, `anonymous` when the server runs without keys.
    owner: value of the `owner` column for rows this call writes and may read (`isolation: shared` makes it `""`).
    deadline: seconds since the Unix epoch, None for no deadline.
    traceparent: W3C trace context of the caller, None when absent.
    provider_data: the caller's own keys for remote providers, never kept beyond the call.
    cancellation: set when the caller disconnects; never crosses a process, there the request id stands for it.
    """

    request_id: str
    principal: str = "anonymous"
    owner: str = ""
    deadline: float | None = None
    traceparent: str | None = None
    provider_data: Secrets = field(default_factory=Secrets)
    cancellation: CancellationToken = field(default_factory=CancellationToken, compare=False, repr=False)

    def check(self, now: Callable[[], float] = time.time) -> None:
        """Return if the work should go on.

        Raises:
            Cancelled: the caller has gone.
            DeadlineExceeded: the deadline has passed.
        """
        if self.cancellation.cancelled:
            raise Cancelled("the caller has gone")
        if self.deadline is not None and now() > self.deadline:
            raise DeadlineExceeded("the deadline of the request has passed")
