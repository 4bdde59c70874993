"""How much of a long prompt goes in beside running sequences: as much as they can wait for."""

from __future__ import annotations

from typing import Protocol


class PrefillBudget(Protocol):
    """How many prompt tokens a step may take beside running sequences."""

    def tokens(self, running: int, waiting: int) -> int:
        """For the next step, beside that many running sequences and for that many that wait."""

    def measured(self, tokens: int, seconds: float) -> None:
        """A prefill run of that many tokens took so long."""


MOST_GAPS = 8
"""A step takes this many times the gap at most."""


class GapBudget:
    """As many tokens as this machine prefills in `gap_s` seconds, by its last runs: so long do the running sequences
    wait beyond their own step.

    Where more wait than run, holding back the few serves the many, and a decode run costs nearly the same for one
    sequence as for four: then the gap grows with their ratio, up to `MOST_GAPS` times.
    """

    def __init__(self, gap_s: float, *, least: int = 16, first: int = 64) -> None:
        self._gap_s = gap_s
        self._least = least
        self._tokens = float(max(first, least))

    def tokens(self, running: int, waiting: int) -> int:
        gaps = min(MOST_GAPS, max(1.0, waiting / max(1, running)))
        return max(self._least, int(self._tokens * gaps))

    def measured(self, tokens: int, seconds: float) -> None:
        if tokens >= self._least and seconds > 0:  # short runs cost what weights cost to read, not what tokens cost
            self._tokens += 0.2 * (tokens * self._gap_s / seconds - self._tokens)
