"""How an attempt at a job runs: in a process of its own, or in a thread of this one."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

from backends.context import CancellationToken


class ProcessExecution:
    """A process, which ends with this one: the command sees to that."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(command, env=environ, start_new_session=True)  # noqa: S603 - a command of ours

    def ended(self) -> str | None:
        code = self._process.poll()
        if code is None:
            return None
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"

    def stop(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


class ThreadExecution:
    """A thread. It heeds `stop` when it next looks at its context, and cannot be killed."""

    def __init__(self, work: Callable[[CancellationToken], None]) -> None:
        self._cancellation = CancellationToken()
        self._thread = threading.Thread(target=work, args=(self._cancellation,), name="job", daemon=True)
        self._thread.start()

    def ended(self) -> str | None:
        return None if self._thread.is_alive() else "its thread ended"

    def stop(self) -> None:
        self._cancellation.cancel()

    def kill(self) -> None:
        return
