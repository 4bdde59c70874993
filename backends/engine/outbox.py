"""What an engine has to tell one client."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from backends.engine.messages import Answer
from backends.errors import StackError
from backends.inference import GenerationEvent


class Outbox:
    """Gathers answers until a step is complete, then rouses the thread that sends. None of its methods blocks.

    ready: called after a flush that had something to tell.
    """

    def __init__(self, ready: Callable[[], None]) -> None:
        self._ready = ready
        self._gathered: deque[tuple[int, Answer]] = deque()
        self._complete: deque[tuple[int, Answer]] = deque()
        self._flushing = threading.Lock()  # of engines' threads, briefly: two that flush would mix up the order

    def put(self, call: int, answer: Answer) -> None:
        """One more answer."""
        self._gathered.append((call, answer))

    def flush(self) -> None:
        """All that was put may be sent."""
        with self._flushing:
            if not self._gathered:
                return
            while self._gathered:
                self._complete.append(self._gathered.popleft())
        self._ready()

    def take(self) -> list[tuple[int, Answer]]:
        """What may be sent. For the one thread that sends."""
        return [self._complete.popleft() for _ in range(len(self._complete))]

    def take_back(self, answers: list[tuple[int, Answer]]) -> None:
        """The client had no room for what `take` gave."""
        self._complete.extendleft(reversed(answers))


class CallSink:
    """The place of one generation in its client's outbox: a `Sink` of `backends/onnx/sequence.py`."""

    def __init__(self, outbox: Outbox, call: int) -> None:
        self._outbox = outbox
        self._call = call

    def put(self, event: GenerationEvent | StackError) -> None:
        self._outbox.put(self._call, event)

    def flush(self) -> None:
        self._outbox.flush()
