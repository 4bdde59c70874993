"""The text of an answer as its tokens arrive: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backends.inference import TextDelta

Detokenizer = Callable[[int], str | None]
"""Takes the next token id and returns the text that is complete with it, None or "" while a character is not."""


class Answer:
    """Turns the tokens of one sequence into deltas.

    Text that may be the beginning of a stop string is held back until it cannot be one any more. `stopped` is True
    from the token on that completes a stop string.
    """

    def __init__(self, detokenize: Detokenizer, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._detokenize = detokenize
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        self._logprobs: list[tuple[int, dict[str, float]]] = []
        """(offset in `_held` at which the token's text begins, its log probabilities)"""

    def push(self, token: int, logprobs: dict[str, float] | None = None) -> TextDelta | None:
        """What can be told after `token`; None when there is nothing."""
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

    def flush(self) -> TextDelta | None:
        """What was held back, at the end of an answer that no stop string ended. Half a character is left out."""
        return self._release(len(self._held))

    def _release(self, length: int) -> TextDelta | None:
        text, self._held = self._held[:length], self._held[length:]
        if not self._held:
            ready, self._logprobs = self._logprobs, []
        else:
            ready = [entry for entry in self._logprobs if entry[0] < length]
            self._logprobs = [(at - length, logprobs) for at, logprobs in self._logprobs if at >= length]
        if not text and not ready:
            return None
        return TextDelta(text, tuple(logprobs for _, logprobs in ready))


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
