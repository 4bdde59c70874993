"""One request in the engine, and its events as the caller reads them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from backends.errors import StackError
from backends.event_queue import EventQueue, QueuedEvents
from backends.inference import GenerationEvent, Priority, StopReason
from backends.onnx.adapter import Adapter
from backends.onnx.answer import Answer
from backends.onnx.executor import Ids
from backends.onnx.grammar import Constraint
from backends.onnx.lookup import PromptLookup
from backends.onnx.prefix_cache import Digest
from backends.onnx.sampling import Sampler


class Sink(Protocol):
    """Takes the events of a sequence in the place of its queue. Called by the engine's thread, so it never blocks."""

    def put(self, event: GenerationEvent | StackError) -> None:
        """One more event."""

    def flush(self) -> None:
        """The step has told all that it has to tell to anyone."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Sequence:
    """One request on its way through the scheduler.

    prompt: int64 [n], not empty, shorter than a slot. max_tokens: at least 1; prompt and answer fit the slot. ends:
    the tokens that end the answer, and as what. constraint: the grammar that the answer obeys. prefix: digests of the
    prompt's blocks, for reuse. lookup: guesses tokens, None for none. logprobs: number of most likely tokens to report
    per token. adapter: what it runs with; None is the model itself. caller: whom its tokens are charged to. deadline:
    seconds since the Unix epoch.
    """

    prompt: Ids
    sampler: Sampler
    answer: Answer
    max_tokens: int
    ends: Mapping[int, StopReason]
    constraint: Constraint | None = None
    prefix: list[Digest] = field(default_factory=list)
    lookup: PromptLookup | None = None
    logprobs: int = 0
    token_text: Callable[[int], str] = str
    adapter: Adapter | None = None
    deadline: float | None = None
    priority: Priority = "interactive"
    caller: str = ""
    events: EventQueue = field(default_factory=EventQueue)
    sink: Sink | None = None
    """Takes the events when there is one; set by `redirect`."""
    telling: threading.Lock = field(default_factory=threading.Lock)
    wake: Callable[[], None] = lambda: None
    """Rouses the scheduler that has the sequence."""
    cancelled: bool = False
    ended: bool = False
    cached: int = 0
    """Tokens of the sequence that its slot holds."""
    last: int = -1
    """The newest token; it goes into the slot with the next run."""
    forced: deque[int] = field(default_factory=deque)
    """Tokens that the grammar has already decided on, to be answered before any is chosen."""
    reused: int = 0
    """Tokens of the prompt whose KV was there already."""
    completion_tokens: int = 0

    @property
    def by_top(self) -> bool:
        """Whether the `sampling.TOP` largest logits suffice for its next token."""
        return self.constraint is None and not self.logprobs and self.sampler.by_top

    def cancel(self) -> None:
        """End the sequence within one step. Safe in a destructor: takes no lock."""
        if not self.ended:
            self.cancelled = True
            self.wake()

    def tell(self, event: GenerationEvent | StackError) -> None:
        """Give the reader an event; `flush` follows when the step has no more for any reader."""
        with self.telling:
            if self.sink is None:
                self.events.put(event)
            else:
                self.sink.put(event)

    def flush(self) -> None:
        if self.sink is not None:
            self.sink.flush()

    def redirect(self, sink: Sink) -> None:
        """Give `sink` what has come and all that comes, in order."""
        with self.telling:
            while not self.events.empty():
                sink.put(self.events.get())
            self.sink = sink
        sink.flush()


class SequenceEvents(QueuedEvents):
    """The events of one sequence. Closing or dropping the iterator cancels the sequence."""

    def __init__(self, sequence: Sequence) -> None:
        super().__init__(sequence.events, sequence.cancel)
        self._sequence = sequence

    def redirect(self, sink: Sink) -> None:
        """Give `sink` what has come and all that comes; this iterator is then only good for closing."""
        self._sequence.redirect(sink)
