"""What an answer's tokens say: whole characters only, nothing of a stop string, and tool calls apart from text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from backends.inference import TextDelta, ToolCallDelta

Detokenizer = Callable[[int], str | None]
"""Takes the next token id and returns the text that is complete with it, None or "" while a character is not."""


Delta = TextDelta | ToolCallDelta


class ToolCallParser(Protocol):
    """Tells the tool calls of an answer from its text."""

    def push(self, text: str) -> Sequence[Delta]:
        """What can be told after `text`."""

    def finish(self) -> Sequence[Delta]:
        """What is left at the end of the answer."""


class Answer:
    """Turns the tokens of one sequence into deltas.

    Text that may be the beginning of a stop string is held back until it cannot be one any more. `stopped` is True
    from the token on that completes a stop string.
    """

    def __init__(self, detokenize: Detokenizer, stop: Sequence[str] = (), calls: ToolCallParser | None = None) -> None:
        self.stopped = False
        self._calls = calls
        self._detokenize = detokenize
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        self._logprobs: list[tuple[int, dict[str, float]]] = []
        """(offset in `_held` at which the token's text begins, its log probabilities)"""
        self._untold: tuple[dict[str, float], ...] = ()
        """Log probabilities of tokens whose text the parser holds back."""

    def push(self, token: int, logprobs: dict[str, float] | None = None) -> Sequence[Delta]:
        """What can be told after `token`."""
        if logprobs is not None:
            self._logprobs.append((len(self._held), logprobs))
        self._held += self._detokenize(token) or ""
        if not self._stop:
            return self._release(len(self._held))
        found = [at for at in map(self._held.find, self._stop) if at >= 0]
        if found:
            self.stopped = True
            self._held = self._held[: min(found)]
            self._logprobs = [entry for entry in self._logprobs if entry[0] < len(self._held)]
            return self._release(len(self._held))
        return self._release(len(self._held) - max(_overlap(self._held, text) for text in self._stop))

    def flush(self) -> Sequence[Delta]:
        """What was held back, at the end of the answer. Half a character is left out."""
        deltas = self._release(len(self._held))
        if self._calls is None:
            return deltas
        deltas = [*deltas, *self._with_logprobs(self._calls.finish())]
        return [*deltas, TextDelta("", self._untold)] if self._untold else deltas

    def _release(self, length: int) -> Sequence[Delta]:
        text, self._held = self._held[:length], self._held[length:]
        if not self._held:
            ready, self._logprobs = self._logprobs, []
        else:
            ready = [entry for entry in self._logprobs if entry[0] < length]
            self._logprobs = [(at - length, logprobs) for at, logprobs in self._logprobs if at >= length]
        if not text and not ready:
            return ()
        logprobs = tuple(by_text for _, by_text in ready)
        if self._calls is None:
            return (TextDelta(text, logprobs),)
        self._untold += logprobs
        return self._with_logprobs(self._calls.push(text))

    def _with_logprobs(self, deltas: Iterable[Delta]) -> Sequence[Delta]:
        """The deltas, the first of them with the log probabilities of all tokens that no delta has told of."""
        told = list(deltas)
        if told and self._untold:
            told[0] = replace(told[0], logprobs=self._untold)
            self._untold = ()
        return told


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
