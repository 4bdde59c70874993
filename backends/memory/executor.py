"""An Executor that computes in Python and checks its caller: what it is told must agree with what its slots hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backends.onnx.adapter import Adapter
from backends.onnx.executor import Ids, Logits
from backends.onnx.prefix_cache import BLOCK

NextLogits = Callable[[list[int]], Logits]
"""The logits, float32 [vocab], after the tokens of a sequence."""


class MemoryExecutor:
    """Keeps the tokens of each slot and gives `next_logits` of them. Any call that would read or write KV which a real
    executor does not have raises LookupError."""

    token_bytes = 8

    def __init__(self, next_logits: NextLogits, *, slots: int, length: int, blocks: int = 0) -> None:
        self.slots = slots
        self.length = length
        self.blocks = blocks
        self._kept: dict[int, list[int]] = {}
        self._next_logits = next_logits
        self._tokens: list[list[int] | None] = [None] * slots

    def begin(self, slot: int, adapter: Adapter | None) -> None:
        if adapter is not None:
            raise LookupError("a model in Python has no adapters")

    def prefill(self, slot: int, ids: Ids, past: int, *, rows: int, top: bool = False) -> Logits:
        tokens = self._append(slot, ids.tolist(), past)
        ends = range(len(tokens) - rows + 1, len(tokens) + 1)
        return np.array([self._next_logits(tokens[:end]) for end in ends], np.float32)

    def decode(self, first: int, ids: Ids, past: Ids, *, top: bool = False) -> Logits:
        rows = [self._append(first + i, [int(ids[i])], int(past[i])) for i in range(len(ids))]
        return np.stack([self._next_logits(tokens) for tokens in rows])

    def move(self, source: int, target: int, length: int) -> None:
        tokens = self._tokens[source]
        if tokens is None or len(tokens) < length:
            raise LookupError(f"slot {source} does not hold {length} tokens")
        self._tokens[target] = tokens[:length]

    def release(self, slot: int) -> None:
        self._tokens[slot] = None

    def save(self, slot: int, position: int, block: int) -> None:
        tokens = self._tokens[slot]
        if not 0 <= block < self.blocks or tokens is None or len(tokens) < position + BLOCK:
            raise LookupError(f"slot {slot} does not hold the tokens for block {block}, or there is no such block")
        self._kept[block] = tokens[: position + BLOCK]

    def load(self, block: int, slot: int, position: int) -> None:
        kept, tokens = self._kept[block], self._tokens[slot] if position else []
        if tokens is None or len(kept) != position + BLOCK or tokens[:position] != kept[:position]:
            raise LookupError(f"block {block} does not continue what slot {slot} holds")
        self._tokens[slot] = list(kept)

    def _append(self, slot: int, ids: list[int], past: int) -> list[int]:
        tokens = self._tokens[slot] if past else []
        if tokens is None or len(tokens) < past:
            raise LookupError(f"slot {slot} does not hold the {past} tokens that are said to be there")
        if past + len(ids) > self.length:
            raise LookupError(f"{past + len(ids)} tokens do not fit a slot of {self.length}")
        tokens[past:] = ids
        self._tokens[slot] = tokens
        return tokens
