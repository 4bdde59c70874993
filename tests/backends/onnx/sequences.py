"""A made-up language model for scheduler tests: its next token is a pure function of the whole sequence."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from itertools import islice

import numpy as np

from backends.errors import StackError
from backends.inference import Finish, Sampling, TextDelta
from backends.memory.executor import MemoryExecutor
from backends.onnx.answer import Answer
from backends.onnx.executor import Ids, Logits
from backends.onnx.sampling import Sampler
from backends.onnx.sequence import Sequence, SequenceEvents

VOCABULARY = 61
END = 0
"""The token that ends an answer, about every 60th."""


def next_logits(tokens: list[int]) -> Logits:
    """Logits that differ for every sequence: a permutation of 0 .. 60."""
    state = zlib.crc32(bytes(tokens))
    return ((np.arange(VOCABULARY) * (1 + state % 60) + state % VOCABULARY) % VOCABULARY).astype(np.float32)


def token_text(token: int) -> str:
    return f"{token} "


def sequence(prompt: list[int], max_tokens: int, **options: object) -> Sequence:
    """A greedy sequence; `stop`: stop strings, the rest goes to Sequence."""
    ids = np.array(prompt, np.int64)
    stop = options.pop("stop", ())
    return Sequence(
        prompt=ids,
        sampler=options.pop("sampler", None) or Sampler(Sampling(), ids, seed=0),  # type: ignore[arg-type]
        answer=Answer(token_text, stop),  # type: ignore[arg-type]
        max_tokens=max_tokens,
        ends={END: "end_of_turn"},
        token_text=token_text,
        **options,  # type: ignore[arg-type]
    )


def oracle(prompt: list[int], max_tokens: int, stop: tuple[str, ...] = ()) -> tuple[str, str]:
    """Text and stop reason that the sequence must have, from the plain loop."""
    tokens, text = list(prompt), ""
    for _ in range(max_tokens):
        token = int(next_logits(tokens).argmax())
        if token == END:
            return text, "end_of_turn"
        tokens.append(token)
        text += token_text(token)
        found = [text.find(s) for s in stop if s in text]
        if found:
            return text[: min(found)], "end_of_turn"
    return text, "out_of_tokens"


def endless(prompt: list[int], tokens: int) -> bool:
    """Whether the model goes on for `tokens` tokens after the prompt."""
    return oracle(prompt, tokens)[1] == "out_of_tokens"


def endless_prompts(count: int, tokens: int) -> list[list[int]]:
    """`count` prompts of different lengths after which the model goes on for `tokens` tokens."""
    candidates = ([1 + i % 60] * (1 + i % 7) + [1 + i // 60] for i in range(3600))
    return list(islice((prompt for prompt in candidates if endless(prompt, tokens)), count))


def read(events: SequenceEvents) -> tuple[str, str | StackError]:
    """All text, and the stop reason or the error."""
    text = ""
    try:
        for event in events:
            if isinstance(event, TextDelta):
                text += event.text
            elif isinstance(event, Finish):
                return text, event.stop_reason
    except StackError as error:
        return text, error
    raise AssertionError("the events ended without a Finish")


class FixedBudget:
    """Prompt tokens per step that do not depend on the machine."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    def tokens(self, running: int, waiting: int) -> int:
        return self._tokens

    def measured(self, tokens: int, seconds: float) -> None:
        """Nothing is learnt from it."""


class SteppedExecutor(MemoryExecutor):
    """Decodes only as often as it is let; keeps a record of its runs.

    runs: ("prefill", slot, tokens) and ("decode", first, sequences). faults: called before each run with what it is.
    """

    def __init__(
        self,
        *,
        slots: int = 4,
        length: int = 512,
        steps: int | None = None,
        blocks: int = 0,
        logits: Callable[[list[int]], Logits] = next_logits,
    ) -> None:
        """`steps`: decode runs that are let at first; None for all."""
        super().__init__(logits, slots=slots, length=length, blocks=blocks)
        self.runs: list[tuple[str, int, int]] = []
        self.moves: list[tuple[int, int, int]] = []
        self.single_tokens = 0
        """Prefill runs of one token that continue a prompt."""
        self.released: set[int] = set()
        self.all_released = threading.Event()
        self.faults: Callable[[str, int, int], None] = lambda kind, slot, count: None
        self._steps = None if steps is None else threading.Semaphore(steps)
        self._blocked = threading.Semaphore(0)

    def let(self, steps: int) -> None:
        """Let that many more decode runs happen."""
        assert self._steps is not None
        self._steps.release(steps)

    def await_blocked(self) -> None:
        """Return when a decode run waits to be let, once for each time that one has to."""
        assert self._blocked.acquire(timeout=30), "no decode run came to wait"

    def decode_runs(self) -> int:
        return sum(kind == "decode" for kind, _, _ in self.runs)

    def prefill(self, slot: int, ids: Ids, past: int, *, rows: int, top: bool = False) -> Logits:
        self.runs.append(("prefill", slot, len(ids)))
        self.faults("prefill", slot, len(ids))
        self.single_tokens += len(ids) == 1 and past > 0
        return super().prefill(slot, ids, past, rows=rows)

    def decode(self, first: int, ids: Ids, past: Ids, *, top: bool = False) -> Logits:
        if self._steps is not None and not self._steps.acquire(blocking=False):
            self._blocked.release()
            assert self._steps.acquire(timeout=60), "no decode run was let"
        self.runs.append(("decode", first, len(ids)))
        self.faults("decode", first, len(ids))
        return super().decode(first, ids, past)

    def move(self, source: int, target: int, length: int) -> None:
        self.faults("move", source, length)
        self.moves.append((source, target, length))
        super().move(source, target, length)

    def release(self, slot: int) -> None:
        super().release(slot)
        self.released.add(slot)
        if len(self.released) == self.slots:
            self.all_released.set()
