"""How many calls run at a time. A limit is tried, never waited for: one call too many is told so at once.

Every call has a thread for as long as it runs. GETs have a small pool of their own, so that neither streams nor long
work can keep `/v1/health` from answering; generations have fewer slots than the other pool has threads.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from backends.errors import Overloaded, Unavailable
from generated.operations import OPERATIONS, Operation
from server.http.options import HttpOptions

GENERATING: frozenset[str] = frozenset(
    {name for name, operation in OPERATIONS.items() if operation.stream_media == "text/event-stream"}
    | {"batch_completion", "batch_chat_completion", "evaluate_rows", "generate_synthetic_data"}
)
"""Operations that hold the engine for long and count against `stream_limit`."""


class _Counter:
    def __init__(self, limit: int, refusal: str) -> None:
        self.limit = limit
        self.refusal = refusal
        self.taken = 0


class Admission:
    """The slots and threads of one worker process."""

    def __init__(self, options: HttpOptions) -> None:
        self._lock = threading.Lock()
        self._generations = _Counter(
            options.stream_limit, f"{options.stream_limit} generations run already; send the request again later"
        )
        self._work = _Counter(
            options.worker_threads, f"{options.worker_threads} calls run already; send the request again later"
        )
        self._short = _Counter(
            options.short_threads + options.short_queue, "too many calls wait already; send the request again later"
        )
        self._work_pool = ThreadPoolExecutor(options.worker_threads, thread_name_prefix="work")
        self._short_pool = ThreadPoolExecutor(options.short_threads, thread_name_prefix="short")

    def run(self, operation: Operation, call: Callable[[], None]) -> None:
        """Start `call` in a thread, in a copy of the current context; its slots are free again when it returns.

        Raises:
            Overloaded: over a limit. Unavailable: closed.
        """
        short = operation.method == "GET" and operation.stream_media is None
        counters = [self._short] if short else [self._work]
        if operation.operation_id in GENERATING:
            counters.append(self._generations)
        self._take(counters)
        context = contextvars.copy_context()
        try:
            (self._short_pool if short else self._work_pool).submit(
                partial(self._run, counters, partial(context.run, call))
            )
        except RuntimeError:  # the pool is closed
            self._give_back(counters)
            raise Unavailable("the server is stopping; send the request again") from None

    def running(self) -> int:
        """Calls that have a thread or wait for one."""
        with self._lock:
            return self._work.taken + self._short.taken

    def close(self) -> None:
        """Take no more calls. Does not wait for those that run."""
        for pool in (self._work_pool, self._short_pool):
            pool.shutdown(wait=False)

    def _run(self, counters: list[_Counter], call: Callable[[], None]) -> None:
        try:
            call()
        finally:
            self._give_back(counters)

    def _take(self, counters: list[_Counter]) -> None:
        with self._lock:
            for counter in counters:
                if counter.taken >= counter.limit:
                    raise Overloaded(counter.refusal)
            for counter in counters:
                counter.taken += 1

    def _give_back(self, counters: list[_Counter]) -> None:
        with self._lock:
            for counter in counters:
                counter.taken -= 1
