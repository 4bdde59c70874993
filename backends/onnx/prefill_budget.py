"""How much of a long prompt goes in beside running sequences: as much as they can wait for."""

from __future__ import annotations

from typing import Protocol


class PrefillBudget(Protocol):
    """How many prompt tokens a step may take beside running sequences."""

    def tokens(self) -> int:
        """For the next step."""

    def measured(self, tokens: int, seconds: float) -> None:
        """A prefill run of that many tokens took so long."""


class GapBudget:
    """As many tokens as this machine prefills in `gap_s` seconds, by its last runs: so long at most do the running
    sequences wait beyond their own step."""

    def __init__(self, gap_s: float, *, least: int = 16, first: int = 64) -> None:
        self._gap_s = gap_s
        self._least = least
        self._tokens = float(max(first, least))

    def tokens(self) -> int:
        return max(self._least, int(self._tokens))

    def measured(self, tokens: int, seconds: float) -> None:
        if tokens >= self._least and seconds > 0:  # short runs cost what weights cost to read, not what tokens cost
            self._tokens += 0.2 * (tokens * self._gap_s / seconds - self._tokens)
