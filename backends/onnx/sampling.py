"""How the next token is chosen from a row of logits. All of it: penalty, temperature, top-k, top-p, the draw, logprobs.

The distribution sampled from is exact, and yet a vocabulary of 50,000 is hardly ever sorted for it: the k largest
logits are found through block maxima, and whether a token is in the nucleus is asked only of the token that was
drawn. At temperature 1 and top_p 0.95 the nucleus of a small model has 1,500 tokens; sorting would take 5 ms, this
takes 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from backends.inference import Sampling

Row = NDArray[np.float32]
Ids = NDArray[np.int64]

TOP = 64
"""Largest logits of a row that a device sends where they suffice."""
CANDIDATES = 64
"""Logits among which a small nucleus is looked for first."""
REJECTION_FROM = 0.2
"""top_p from which on tokens are drawn until one is in the nucleus: 1 / top_p draws on average at most."""
BLOCKS = 256
"""Least number of columns over which maxima are taken."""
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

    @property
    def by_top(self) -> bool:
        """Whether the `TOP` largest logits of a row decide as all of them would."""
        return self._penalty == 1 and (self._greedy or 0 < self._top_k <= TOP)

    def take(self, token: int) -> None:
        """Count a token as seen that was not chosen but given."""
        if self._penalty != 1:
            self._seen.add(token)

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
        if 0 < self._top_k < len(logits):
            tokens = largest(logits, self._top_k)
            cumulative = self._weights(logits[tokens], peak).cumsum(dtype=np.float64)
            return self._draw_from_nucleus(tokens, cumulative, float(cumulative[-1]))
        weights = self._weights(logits, peak)
        if self._top_p >= REJECTION_FROM:
            return self._draw_by_rejection(logits, weights)
        mass = float(weights.sum())
        tokens = largest(logits, CANDIDATES)
        cumulative = weights[tokens].cumsum(dtype=np.float64)
        if cumulative[-1] < self._top_p * mass:  # the nucleus is wider than the candidates
            tokens = largest(logits, len(logits))
            cumulative = weights[tokens].cumsum(dtype=np.float64)
        return self._draw_from_nucleus(tokens, cumulative, mass)

    def _draw_from_nucleus(self, tokens: Ids, cumulative: NDArray[np.float64], mass: float) -> int:
        """Draw from the shortest head of `tokens`, most likely first, whose weights add up to top_p of `mass`."""
        if self._top_p < 1:
            cumulative = cumulative[: int(np.searchsorted(cumulative, self._top_p * mass)) + 1]
        return int(tokens[_draw(cumulative, self._random.random() * float(cumulative[-1]))])

    def _draw_by_rejection(self, logits: Row, weights: Row) -> int:
        """Draw from all tokens until one is in the nucleus: the tokens ahead of it weigh less than top_p of all.

        A running sum over a vocabulary is slow. So the weights are seen as a table: its rows are summed, a row is
        drawn, then a token of that row.
        """
        whole = len(weights) // BLOCKS * BLOCKS
        sums = np.append(weights[:whole].reshape(-1, BLOCKS).sum(axis=1), weights[whole:].sum())
        rows = sums.cumsum(dtype=np.float64)
        mass = float(rows[-1])
        while True:
            target = self._random.random() * mass
            row = _draw(rows, target)
            start = row * BLOCKS
            before = float(rows[row - 1]) if row else 0.0
            token = start + _draw(weights[start : start + BLOCKS].cumsum(dtype=np.float64), target - before)
            if self._top_p == 1:
                return token
            ahead = logits > logits[token]
            ahead[:token] |= logits[:token] == logits[token]
            if float(weights[ahead].sum()) < self._top_p * mass:
                return token

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
    blocks = max(BLOCKS, 4 * count)  # with four columns to a wanted one few more than wanted pass the threshold
    rows = len(logits) // blocks
    if rows > 3:
        maxima = logits[: rows * blocks].reshape(rows, blocks).max(axis=0)
        threshold = np.partition(maxima, blocks - count)[blocks - count]
        ids = np.flatnonzero(logits >= threshold)
    elif count < len(logits):
        threshold = np.partition(logits, len(logits) - count)[len(logits) - count]
        ids = np.flatnonzero(logits >= threshold)
    else:
        ids = np.arange(len(logits))
    order = np.argsort(-logits[ids], kind="stable")[:count]
    return ids[order].astype(np.int64, copy=False)


def log_probabilities(logits: Row, token: int, count: int) -> list[tuple[int, float]]:
    """Natural log probabilities of `count` tokens: `token`, which was chosen, then the most likely others, best first.

    They are of the model's own distribution: before penalty, temperature and cuts.
    """
    peak = logits.max()
    log_total = float(peak) + math.log(np.exp(logits - peak).sum())
    ids = [token, *(int(i) for i in largest(logits, count) if i != token)]
    return [(i, float(logits[i]) - log_total) for i in ids[:count]]


def _draw(cumulative: NDArray[np.float64], target: float) -> int:
    """First index at which the running sum `cumulative` exceeds `target`; never one that adds nothing to it."""
    below = math.nextafter(float(cumulative[-1]), 0.0)  # rounding may push a target past the end
    return int(np.searchsorted(cumulative, min(target, below), side="right"))
