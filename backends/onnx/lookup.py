"""Prompt lookup: guesses how an answer goes on from what the same sequence said before.

Answers about a text repeat pieces of it. Where the last tokens have occurred earlier, the tokens that followed them
then are a guess; one run checks all of it (Saxena, "Prompt Lookup Decoding", 2023; Leviathan et al., arXiv:2211.17192).
What is checked is what would have been chosen, so the answer's distribution does not change.
"""

from __future__ import annotations

from collections.abc import Sequence

NGRAM = 3
"""Tokens that must have occurred before."""
GUESS = 8
"""Tokens guessed at once."""
REST = 8
"""Tokens without a guess after one that was wrong from the start."""


class PromptLookup:
    """The tokens of one sequence, searchable by their n-grams."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        """Where the latest earlier occurrence of an n-gram ends."""
        self._rest = 0
        for token in prompt:
            self.add(token)

    def add(self, token: int) -> None:
        """The sequence went on by a token."""
        if len(self._tokens) >= NGRAM:
            self._after[tuple(self._tokens[-NGRAM:])] = len(self._tokens)
        self._tokens.append(token)
        self._rest = max(0, self._rest - 1)

    def guess(self) -> list[int]:
        """How it may go on; often empty."""
        if self._rest or len(self._tokens) < NGRAM:
            return []
        start = self._after.get(tuple(self._tokens[-NGRAM:]))
        return [] if start is None else self._tokens[start : start + GUESS]

    def checked(self, right: int) -> None:
        """So many of the guessed tokens were right."""
        if not right:
            self._rest = REST
