"""Which prompts' KV is kept for reuse: blocks of tokens, each known by all tokens up to its end, oldest given up first.

Only whole blocks of prompts are kept, as prefill made them: what decode makes of the same tokens differs in rounding,
and a greedy answer must not depend on whether a prefix was reused. The blocks' memory is the executor's.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
"""Tokens of a block."""
LEFT_OVER = 2
"""Tokens of a prompt that are always run: the answer needs logits, and a run of one token would round differently."""

Digest = bytes


def block_digests(salt: str, prompt: NDArray[np.int64]) -> list[Digest]:
    """A digest for each reusable block of the prompt, of the salt and every token up to the block's end.

    salt: who may share: prompts of different salts never meet, so that nobody learns by the clock what others ask.
    """
    usable = max(0, len(prompt) - LEFT_OVER) // BLOCK
    chain = hashlib.blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=16)
    digests = []
    for block in range(usable):
        chain.update(prompt[block * BLOCK : (block + 1) * BLOCK].tobytes())
        digests.append(chain.copy().digest())
    return digests


class PrefixCache:
    """Tells which of `capacity` blocks hold which prefixes. Used by the scheduler's thread alone."""

    def __init__(self, capacity: int) -> None:
        self._free = list(range(capacity))
        self._blocks: OrderedDict[Digest, int] = OrderedDict()
        """Oldest use first."""

    @property
    def used(self) -> int:
        """Blocks in use."""
        return len(self._blocks)

    def match(self, digests: Sequence[Digest]) -> list[int]:
        """The blocks of the longest known prefix, in order."""
        found = []
        for digest in digests:
            block = self._blocks.get(digest)
            if block is None:
                break
            found.append(block)
        self._touch(digests[: len(found)])
        return found

    def add(self, digests: Sequence[Digest]) -> list[tuple[int, int]]:
        """Take the prefix in. `(position in the prompt, block)` for each block that must be filled now."""
        wanted = set(digests)
        fill = []
        for index, digest in enumerate(digests):
            if digest in self._blocks:
                continue
            block = self._free_block(wanted)
            if block is None:
                break  # the cache is smaller than this prompt
            self._blocks[digest] = block
            fill.append((index * BLOCK, block))
        self._touch([digest for digest in digests if digest in self._blocks])
        return fill

    def clear(self) -> None:
        """Forget everything, after a failure that left the blocks' content unknown."""
        self._free += self._blocks.values()
        self._blocks.clear()

    def _touch(self, digests: Sequence[Digest]) -> None:
        # Later blocks first, so that a prefix is given up from its end: its beginning may be shared.
        for digest in reversed(digests):
            self._blocks.move_to_end(digest)

    def _free_block(self, keep: set[Digest]) -> int | None:
        if self._free:
            return self._free.pop()
        oldest = next(iter(self._blocks), None)
        if oldest is None or oldest in keep:
            return None
        return self._blocks.pop(oldest)
