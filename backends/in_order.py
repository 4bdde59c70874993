"""Work on many items by some threads at once, in order, without taking all items first."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Iterable[Item], *, at_once: int, name: str) -> Iterator[Result]:
    """The results in the order of the items, of which at most `at_once` are under way and twice as many are taken.

    What `work` raises is raised in the place of its result, and nothing more is begun. Spans of the threads belong to
    the caller's. name: of the threads.
    """
    running: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(at_once, thread_name_prefix=name) as pool:
        try:
            for item in items:
                running.append(pool.submit(contextvars.copy_context().run, work, item))
                if len(running) >= 2 * at_once:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for left in running:
                left.cancel()
