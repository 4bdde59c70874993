"""An answer that is either calls of tools or what a response format asks for, decided by the answer itself.

Both grammars run beside each other, and a token may come next if either allows it; the one that does not allow it is
out. As long as both are in, nobody can say what the answer is: JSON of a schema with a `name` begins as a call in JSON
does. So what is written is held back until one of them is left. Two matchers and no joint grammar, since rules that a
caller wrote can neither clash with those of the calls nor ask what the remaining text was.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backends.inference import TextDelta
from backends.onnx.answer import Delta, ToolCallParser
from backends.onnx.grammar import GrammarConstraint

Form = Literal["calls", "format"]


class CallsOrFormat:
    """The constraint of such an answer. Implements `Constraint`.

    calls: grammar of calls alone. form: that of the response format.
    """

    def __init__(self, calls: GrammarConstraint, form: GrammarConstraint) -> None:
        self._open: dict[Form, GrammarConstraint] = {"calls": calls, "format": form}

    @property
    def form(self) -> Form | None:
        """What the answer is; None while it may become either."""
        return next(iter(self._open)) if len(self._open) == 1 else None

    @property
    def ended_as(self) -> Form:
        """What the answer is if it ends here: calls if they are whole, whatever the format would also allow."""
        return self.form or ("calls" if self._open["calls"].may_end else "format")

    def masked(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        first, *others = [constraint.masked(logits) for constraint in self._open.values()]
        for other in others:
            np.maximum(first, other, out=first)
        return first

    def accept(self, token: int) -> None:
        if self.form is None:
            self._open = {form: constraint for form, constraint in self._open.items() if constraint.allows(token)}
        for constraint in self._open.values():
            constraint.accept(token)

    def forced(self) -> list[int]:
        first, *others = [constraint.forced() for constraint in self._open.values()]
        for other in others:
            first = [token for token, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, other, strict=False))]
        return first

    @property
    def complete(self) -> bool:
        return all(constraint.complete for constraint in self._open.values())


class HeldCalls:
    """Reads such an answer: holds it back until it is known what it is. Implements `ToolCallParser`.

    calls: reader of the calls.
    """

    def __init__(self, constraint: CallsOrFormat, calls: ToolCallParser) -> None:
        self._constraint = constraint
        self._calls = calls
        self._held = ""

    def push(self, text: str) -> Sequence[Delta]:
        self._held += text
        form = self._constraint.form
        return () if form is None else self._told(form)

    def finish(self) -> Sequence[Delta]:
        form = self._constraint.ended_as
        told = self._told(form)
        return [*told, *self._calls.finish()] if form == "calls" else told

    def _told(self, form: Form) -> Sequence[Delta]:
        text, self._held = self._held, ""
        if form == "calls":
            return self._calls.push(text)
        return [TextDelta(text)] if text else ()
