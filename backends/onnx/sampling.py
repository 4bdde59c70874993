"""How the next token is chosen from a row of logits. All of it: penalty, temperature, top-k, top-p, the draw, logprobs.

The distribution sampled from is exact. A vocabulary of 50,000 is never sorted for it unless it must be: the 64
largest logits are found through block maxima (43 us per token against 700 for a full sort), and only a nucleus that
reaches beyond them takes the slow way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from backends.inference import Sampling

Row = NDArray[np.float32]
Ids = NDArray[np.int64]

CANDIDATES = 64
"""Logits looked at first when top_k leaves the number open."""
BLOCKS = 256
"""Columns over which maxima are taken; at least twice CANDIDATES, so that few more than wanted pass the threshold."""
GREEDY_BELOW = 1e-5
"""Temperatures below it are greedy: the division would overflow, and the largest logit wins anyway."""


class Sampler:
    """Chooses the tokens of one sequence, one after the other.

    The result depends on the logits, the sampling parameters and the seed alone, so a seeded sample is the same in
    any batch.
    """

    def __init__(self, sampling: Sampling, prompt: Ids, seed: int) -> None:
        """`prompt`: int64 [n], whose tokens count as seen. `sampling.repetition_penalty` None is 1."""
        self._greedy = sampling.temperature < GREEDY_BELOW or sampling.top_k == 1
        self._temperature = sampling.temperature
        self._top_p = sampling.top_p
        self._top_k = sampling.top_k
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._penalty = sampling.repetition_penalty or 1.0
        self._scratch: Row = np.empty(0, np.float32)
        self._seen = SeenTokens(prompt.tolist() if self._penalty != 1 else ())

    def choose(self, logits: Row) -> int:
        """The next token for `logits`, float32 [vocab], which are as before on return.

        Raises:
            ArithmeticError: no logit is finite, or one is not a number.
        """
        if self._penalty == 1:
            return self._choose(logits)
        seen = self._seen.ids
        plain = logits[seen]
        logits[seen] = penalised(plain, self._penalty)
        try:
            token = self._choose(logits)
        finally:
            logits[seen] = plain
        self._seen.add(token)
        return token

    def _choose(self, logits: Row) -> int:
        token = int(logits.argmax()) if self._greedy else self._sample(logits)
        if not math.isfinite(logits[token]):
            raise ArithmeticError("the model's logits are not finite")
        return token

    def _sample(self, logits: Row) -> int:
        """Draw from softmax(logits / temperature), cut to the top_k largest and of these to the nucleus of mass top_p
        (Holtzman et al., arXiv:1904.09751)."""
        peak = logits.max()
        if not np.isfinite(peak):
            return int(logits.argmax())
        uniform = self._random.random()
        if 0 < self._top_k < len(logits):
            tokens = largest(logits, self._top_k)
            cumulative = self._weights(logits[tokens], peak).cumsum(dtype=np.float64)
            mass = cumulative[-1]
        elif self._top_p < 1:
            weights = self._weights(logits, peak)
            mass = weights.sum()
            tokens = largest(logits, CANDIDATES)
            cumulative = weights[tokens].cumsum(dtype=np.float64)
            if cumulative[-1] < self._top_p * mass:  # the nucleus is wider than the candidates
                tokens = largest(logits, len(logits))
                cumulative = weights[tokens].cumsum(dtype=np.float64)
        else:
            return _draw_from_all(self._weights(logits, peak), uniform)
        if self._top_p < 1:
            nucleus = int(np.searchsorted(cumulative, self._top_p * mass)) + 1
            cumulative = cumulative[:nucleus]
        return int(tokens[_draw(cumulative, uniform * float(cumulative[-1]))])

    def _weights(self, logits: Row, peak: np.float32) -> Row:
        """Probabilities up to a factor. The array is the sampler's own and lasts until the next call."""
        if len(self._scratch) < len(logits):
            self._scratch = np.empty(len(logits), np.float32)
        weights = self._scratch[: len(logits)]
        np.subtract(logits, peak, out=weights)
        weights *= np.float32(1 / self._temperature)
        return np.exp(weights, out=weights)


class SeenTokens:
    """A set of token ids that is at hand as an array."""

    def __init__(self, tokens: Iterable[int]) -> None:
        self._known = set(tokens)
        self._ids: Ids = np.fromiter(self._known, np.int64, len(self._known))

    @property
    def ids(self) -> Ids:
        """int64 [number of tokens], each once."""
        return self._ids[: len(self._known)]

    def add(self, token: int) -> None:
        count = len(self._known)
        self._known.add(token)
        if len(self._known) > count:
            if count == len(self._ids):
                self._ids = np.concatenate([self._ids, np.empty(count + 64, np.int64)])
            self._ids[count] = token


def penalised(logits: Row, penalty: float) -> Row:
    """Logits of seen tokens after the repetition penalty (CTRL, arXiv:1909.05858): positive ones divided, negative ones
    multiplied by it."""
    factor = np.float32(penalty)
    return np.where(logits > 0, logits / factor, logits * factor)


def largest(logits: Row, count: int) -> Ids:
    """Ids of the `count` largest logits, largest first, of equal ones the lower id first. Exact.

    At least `count` of the logits are not below the count-th largest maximum of disjoint columns; those are compared
    out in one pass and only they are sorted.
    """
    count = min(count, len(logits))
    whole = len(logits) // BLOCKS * BLOCKS
    if count <= BLOCKS // 2 and whole > 2 * BLOCKS:
        maxima = logits[:whole].reshape(-1, BLOCKS).max(axis=0)
        threshold = np.partition(maxima, BLOCKS - count)[BLOCKS - count]
        ids = np.flatnonzero(logits >= threshold)
    elif count < len(logits):
        threshold = np.partition(logits, len(logits) - count)[len(logits) - count]
        ids = np.flatnonzero(logits >= threshold)
    else:
        ids = np.arange(len(logits))
    order = np.argsort(-logits[ids], kind="stable")[:count]
    return ids[order].astype(np.int64, copy=False)


def log_probabilities(logits: Row, token: int, count: int) -> list[tuple[int, float]]:
    """Natural log probabilities of `token`, which comes first, and of the `count` most likely tokens, best first.

    They are of the model's own distribution: before penalty, temperature and cuts.
    """
    peak = logits.max()
    log_total = float(peak) + math.log(np.exp(logits - peak).sum())
    ids = [token, *(int(i) for i in largest(logits, count) if i != token)]
    return [(i, float(logits[i]) - log_total) for i in ids]


def _draw(cumulative: NDArray[np.float64], target: float) -> int:
    """First index at which the running sum `cumulative` exceeds `target`; never one that adds nothing to it."""
    below = math.nextafter(float(cumulative[-1]), 0.0)  # rounding may push a target past the end
    return int(np.searchsorted(cumulative, min(target, below), side="right"))


def _draw_from_all(weights: Row, uniform: float) -> int:
    """Index drawn with `weights`: first a row of the weights as a table, then an index in that row. A running sum over
    all of a vocabulary takes five times as long."""
    whole = len(weights) // BLOCKS * BLOCKS
    rows = np.append(weights[:whole].reshape(-1, BLOCKS).sum(axis=1), weights[whole:].sum()).cumsum(dtype=np.float64)
    target = uniform * float(rows[-1])
    row = _draw(rows, target)
    start = row * BLOCKS
    before = float(rows[row - 1]) if row else 0.0
    return start + _draw(weights[start : start + BLOCKS].cumsum(dtype=np.float64), target - before)
