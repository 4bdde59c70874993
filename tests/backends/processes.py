"""Other processes for tests of what several processes share."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence

# Children are forked from a server that has imported the slow modules once and never ran a thread.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["backends.store"])


def run_at_once(
    target: Callable[..., object], calls: Sequence[tuple[object, ...]], timeout_s: float = 120
) -> list[int]:
    """Run `target` in one process per tuple of arguments, all at once, and return their exit codes."""
    processes = [PROCESSES.Process(target=target, args=arguments) for arguments in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout_s)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return [-9 if code is None else code for code in codes]
