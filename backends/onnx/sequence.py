"""One request in the engine, and its events as the caller reads them."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from backends.errors import StackError
from backends.inference import GenerationEvent, Priority, StopReason, TextDelta, ToolCallDelta
from backends.onnx.answer import Answer
from backends.onnx.executor import Ids
from backends.onnx.grammar import Constraint
from backends.onnx.lookup import PromptLookup
from backends.onnx.prefix_cache import Digest
from backends.onnx.sampling import Sampler


@dataclass(slots=True, eq=False, weakref_slot=True)
class Sequence:
    """One request on its way through the scheduler.

    prompt: int64 [n], not empty, shorter than a slot. max_tokens: at least 1; prompt and answer fit the slot. ends:
    the tokens that end the answer, and as what. constraint: the grammar that the answer obeys. prefix: digests of the
    prompt's blocks, for reuse. lookup: guesses tokens, None for none. logprobs: number of most likely tokens to report
    per token. caller: whom its tokens are charged to. deadline: seconds since the Unix epoch.
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
    deadline: float | None = None
    priority: Priority = "interactive"
    caller: str = ""
    events: queue.SimpleQueue[GenerationEvent | StackError] = field(default_factory=queue.SimpleQueue)
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

    def cancel(self) -> None:
        """End the sequence within one step. Safe in a destructor: takes no lock."""
        self.cancelled = True
        self.wake()


class SequenceEvents(Iterator[GenerationEvent]):
    """The events of one sequence: deltas and a `Finish`.

    What has come since the last call is one delta: a slow reader gets larger pieces and no backlog. Closing or
    dropping the iterator cancels the sequence.
    """

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence
        self._events = sequence.events
        self._next: GenerationEvent | StackError | None = None
        """Fetched while deltas were joined, still to be told."""
        self._ended = False

    def __next__(self) -> GenerationEvent:
        if self._ended:
            raise StopIteration
        event, self._next = self._next or self._events.get(), None
        if isinstance(event, TextDelta):
            return self._joined(event)
        if isinstance(event, ToolCallDelta):
            return event
        self._ended = True
        if isinstance(event, StackError):
            raise event
        return event

    def close(self) -> None:
        """End the sequence within one step. After the last event there is nothing to end."""
        if not self._ended:
            self._ended = True
            self._sequence.cancel()

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
