"""Who goes next: sequences that wait for a slot, fair by tokens among callers, interactive before batch.

Among callers the one that has been served the fewest tokens goes first (virtual token counter, Sheng et al., "Fairness
in Serving Large Language Models", arXiv:2401.00588): a caller with a thousand requests delays another's first by one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

from backends.inference import Priority
from backends.onnx.sequence import Sequence

BATCH_EVERY = 8
"""After so many interactive sequences in a row one of batch work is let in, so that it never starves."""


class WaitingSequences:
    """The scheduler's waiting room. Used by its thread alone."""

    def __init__(self) -> None:
        self._queues: dict[Priority, dict[str, deque[Sequence]]] = {"interactive": {}, "batch": {}}
        self._served: dict[str, float] = {}
        """Tokens served to each caller that has something waiting or running."""
        self._present: Counter[str] = Counter()
        """Sequences of each caller that wait or run."""
        self._interactive_in_a_row = 0

    def __iter__(self) -> Iterator[Sequence]:
        for queues in self._queues.values():
            for queue in queues.values():
                yield from queue

    def __bool__(self) -> bool:
        return any(self._queues.values())

    def push(self, sequence: Sequence) -> None:
        """Put the sequence at the end of its caller's queue."""
        caller = sequence.caller
        if not self._present[caller]:
            # Whoever was away neither brings credit for that time nor old debts.
            self._served[caller] = min(self._served.values(), default=0.0)
        self._present[caller] += 1
        self._queues[sequence.priority].setdefault(caller, deque()).append(sequence)

    def pop(self) -> Sequence | None:
        """The sequence to be served next; None if nobody waits."""
        interactive, batch = self._queues["interactive"], self._queues["batch"]
        take_batch = batch and (not interactive or self._interactive_in_a_row >= BATCH_EVERY)
        self._interactive_in_a_row = 0 if take_batch else self._interactive_in_a_row + 1
        queues = batch if take_batch else interactive
        if not queues:
            return None
        caller = min(queues, key=lambda name: self._served[name])
        sequence = queues[caller].popleft()
        if not queues[caller]:
            del queues[caller]
        return sequence

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out that waits no more."""
        queues = self._queues[sequence.priority]
        queues[sequence.caller].remove(sequence)
        if not queues[sequence.caller]:
            del queues[sequence.caller]

    def charge(self, caller: str, tokens: int) -> None:
        """Tokens were computed for the caller."""
        self._served[caller] += tokens

    def leave(self, caller: str) -> None:
        """A sequence of the caller has ended, wherever it was."""
        self._present[caller] -= 1
        if not self._present[caller]:
            del self._present[caller], self._served[caller]
