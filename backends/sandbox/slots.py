"""A bound on sandboxes that run at once, over all processes that share a directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from backends.context import CallContext
from backends.errors import Overloaded

_LOOK_S = 0.02
"""Seconds between looks for a free slot."""


class Slots:
    """`count` locks of files. A process that ends in any way gives up what it holds."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        self._count = count

    @contextlib.contextmanager
    def hold(self, context: CallContext, wait_s: float) -> Iterator[None]:
        """Wait for a slot, and hold it for the block.

        Raises:
            Overloaded: none is free for `wait_s` seconds. Cancelled, DeadlineExceeded: while waiting.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        ends = time.monotonic() + wait_s
        while (held := self._take()) is None:
            context.check()
            if time.monotonic() > ends:
                raise Overloaded(f"all {self._count} places for running code are taken")
            context.cancellation.wait(_LOOK_S)
        try:
            yield
        finally:
            os.close(held)

    def _take(self) -> int | None:
        for number in range(self._count):
            descriptor = os.open(self._directory / f"slot-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            else:
                return descriptor
        return None
