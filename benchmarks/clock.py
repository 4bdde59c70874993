"""How long a piece of work takes."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds from the beginning of `work` to its end, on the wall's clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
