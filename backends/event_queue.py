"""The events of one generation on their way from the thread that makes them to the one that reads them."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator

from backends.errors import StackError
from backends.inference import GenerationEvent, TextDelta

EventQueue = queue.SimpleQueue[GenerationEvent | StackError]
"""Deltas in order and at the end a `Finish` or an error. May be put to from a destructor: it knows no lock to meet
twice."""


class QueuedEvents(Iterator[GenerationEvent]):
    """Reads a queue to its end: deltas and a `Finish`, or an error that is raised.

    What has come since the last call is one delta: a slow reader gets larger pieces and no backlog. Closing or
    dropping the iterator before its end calls `cancel`, which must be safe in a destructor.
    """

    def __init__(self, events: EventQueue, cancel: Callable[[], None]) -> None:
        self._events = events
        self._cancel = cancel
        self._next: GenerationEvent | StackError | None = None
        """Fetched while deltas were joined, still to be told."""
        self._ended = False

    def __next__(self) -> GenerationEvent:
        if self._ended:
            raise StopIteration
        event, self._next = self._next or self._events.get(), None
        if isinstance(event, TextDelta):
            return self._joined(event)
        if isinstance(event, StackError):
            self._ended = True
            raise event
        self._ended = event.kind == "finish"
        return event

    def close(self) -> None:
        """End the generation within one step. After the last event there is nothing to end."""
        if not self._ended:
            self._ended = True
            self._cancel()

    def __del__(self) -> None:
        self.close()

    def _joined(self, first: TextDelta) -> TextDelta:
        more = []
        while not self._events.empty():
            event = self._events.get()
            if not isinstance(event, TextDelta):
                self._next = event
                break
            more.append(event)
        if not more:
            return first
        deltas = [first, *more]
        return TextDelta("".join(d.text for d in deltas), tuple(entry for d in deltas for entry in d.logprobs))
