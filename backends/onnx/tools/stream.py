"""Reads an answer as it comes: what is text, what is a call, and nothing of a call among the text.

A format says where its calls begin (`Opening`) and reads them in straight-line code, as a generator that yields
whenever it needs more of the answer. Text that may still turn out to be the beginning of a call is held back. White
space next to a call is left out. How the answer was cut into pieces never changes what is read.
"""

from __future__ import annotations

import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backends.inference import TextDelta, ToolCallDelta
from generated.models import ToolCall

BLANK = " \t\r\n"
Delta = TextDelta | ToolCallDelta
Steps = Generator[None, None, None]
"""Yields when it needs more of the answer, or to know that it has ended."""
Place = Literal["anywhere", "line", "start"]


@dataclass(frozen=True, slots=True)
class Opening:
    """Where a call begins.

    whole: matches the beginning of a call. partial: matches at the end of a text what may become one. place: whether it
    counts anywhere, at the beginning of a line, or only where no text came before; the answer's beginning and the end
    of a call are such places, and also beginnings of a line.
    """

    whole: re.Pattern[str]
    partial: re.Pattern[str]
    place: Place

    @classmethod
    def of_text(cls, text: str) -> Opening:
        """Calls begin with `text`, anywhere."""
        return cls.of_atoms("anywhere", [re.escape(c) for c in text])

    @classmethod
    def of_atoms(cls, place: Place, *alternatives: Sequence[str]) -> Opening:
        """Calls begin with one of the alternatives: what its regular expressions match one after the other, each of
        them a single character or optional white space."""
        partials = []
        for atoms in alternatives:
            partial = ""
            for atom in reversed(atoms):
                partial = f"{atom}(?:{partial})?" if partial else atom
            partials.append(partial)
        whole = "|".join("".join(atoms) for atoms in alternatives)
        return cls(re.compile(whole), re.compile(rf"(?:{'|'.join(partials)})\Z"), place)

    def find(self, pattern: re.Pattern[str], text: str, gaps: Sequence[str]) -> int | None:
        """Where `pattern` (ours) first matches in `text` at a place that counts. gaps: what may come before a call, but
        for white space, without making it a call in the middle of a text."""
        for match in pattern.finditer(text):
            before = text[: match.start()]
            if (
                self.place == "anywhere"
                or before.strip(BLANK) in gaps
                or (self.place == "line" and before.rstrip(" \t").endswith("\n"))
            ):
                return match.start()
        return None


class CallStream(ABC):
    """The state of reading one answer. Implements `ToolCallParser`.

    new_id: gives each call its id.
    """

    def __init__(self, openings: Sequence[Opening], new_id: Callable[[], str] | None = None) -> None:
        self._openings = openings
        self._new_id = new_id or _uuid
        self._buffer = ""
        """What came and is not read yet."""
        self._ended = False
        self._fresh = True
        """No text was told since the beginning or the last call."""
        self._called = False
        self._raw: list[str] = []
        self._deltas: list[Delta] = []
        self._steps = self._answer()

    def push(self, text: str) -> list[Delta]:
        """What is known after more of the answer."""
        self._buffer += text
        return self._run()

    def finish(self) -> list[Delta]:
        """What was held back, at the end of the answer. A call that is not complete has failed."""
        self._ended = True
        return self._run()

    @abstractmethod
    def _calls(self) -> Steps:
        """Read a call, or several that belong together; the buffer begins with an opening."""

    def _run(self) -> list[Delta]:
        next(self._steps, None)
        deltas, self._deltas = self._deltas, []
        return deltas

    def _answer(self) -> Steps:
        while True:
            gaps = self._gaps()
            found = [o.find(o.whole, self._buffer, gaps) for o in self._openings]
            begins = min((at for at in found if at is not None), default=None)
            if begins is not None:
                before = self._buffer[:begins].rstrip(BLANK)
                if before.lstrip(BLANK) not in gaps:
                    self._tell(before)
                self._buffer = self._buffer[begins:]
                yield from self._calls()
                self._fresh = self._called = True
            elif self._ended:
                self._tell(self._buffer)
                return
            else:
                ready = self._ready()
                self._tell(self._buffer[:ready])
                self._buffer = self._buffer[ready:]
                yield

    def _ready(self) -> int:
        """How much of the buffer is text whatever follows."""
        gaps = self._gaps()
        found = [o.find(o.partial, self._buffer, gaps) for o in self._openings]
        text = self._buffer[: min((at for at in found if at is not None), default=None)].rstrip(BLANK)
        return 0 if text.lstrip(BLANK) in gaps else len(text)

    def _gaps(self) -> tuple[str, ...]:
        """Texts that are nothing to tell if a call follows; some models put such between calls."""
        if not self._fresh:
            return ()
        return ("", ";", ",") if self._called else ("",)

    def _tell(self, text: str) -> None:
        if self._fresh and self._called:
            text = text.lstrip(BLANK)
        if text:
            self._deltas.append(TextDelta(text))
            self._fresh = False

    # What formats read calls with.

    def _start(self) -> None:
        self._raw = []
        self._deltas.append(ToolCallDelta("started"))

    def _progress(self, length: int | None) -> None:
        """The next `length` characters of the buffer, None for all, belong to the call."""
        if text := self._buffer[:length]:
            self._raw.append(text)
            self._deltas.append(ToolCallDelta("in_progress", text))
        self._buffer = "" if length is None else self._buffer[length:]

    def _end(self, call: tuple[str, dict[str, Any]] | None) -> None:
        """The call is complete; None when it is none that we know."""
        if call is None:
            self._deltas.append(ToolCallDelta("failed", "".join(self._raw)))
        else:
            name, arguments = call
            made = ToolCall(call_id=self._new_id(), tool_name=name, arguments=arguments)
            self._deltas.append(ToolCallDelta("succeeded", call=made))

    def _skip_blank(self) -> Steps:
        while not (rest := self._buffer.lstrip(BLANK)) and not self._ended:
            yield
        self._buffer = rest

    def _skip(self, text: str) -> Generator[None, None, bool]:
        """Leave out `text` if that comes next; whether it did."""
        while not self._ended and text.startswith(self._buffer) and self._buffer != text:
            yield
        found = self._buffer.startswith(text)
        if found:
            self._buffer = self._buffer[len(text) :]
        return found

    def _bracketed(self, quotes: str) -> Generator[None, None, bool]:
        """Add to the call all up to where the brackets that it opens are closed; False if the answer ends before."""
        brackets = Brackets(quotes)
        while True:
            end = brackets.feed(self._buffer)
            self._progress(end)
            if end is not None or self._ended:
                return end is not None
            yield

    def _until(self, text: str) -> Steps:
        """Add to the call all up to `text`, or the end of the answer, and leave that out."""
        partial = Opening.of_text(text).partial
        while (at := self._buffer.find(text)) < 0 and not self._ended:
            held = partial.search(self._buffer)
            self._progress(held.start() if held else None)
            yield
        self._progress(None if at < 0 else at)
        self._buffer = self._buffer[len(text) :]

    def _to_the_end(self) -> Steps:
        """Add the rest of the answer to the call."""
        while not self._ended:
            self._progress(None)
            yield
        self._progress(None)


class Brackets:
    """Finds where the brackets that a text opens are closed again. `quotes`: what strings stand in."""

    def __init__(self, quotes: str) -> None:
        self._quotes = quotes
        self._depth = 0
        self._quote = ""
        self._escaped = False

    def feed(self, text: str) -> int | None:
        """The length of that part of `text` with which the last bracket is closed; None if it is not in there."""
        for at, character in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._quote:
                if character == "\\":
                    self._escaped = True
                elif character == self._quote:
                    self._quote = ""
            elif character in self._quotes:
                self._quote = character
            elif character in "([{":
                self._depth += 1
            elif character in ")]}":
                self._depth -= 1
                if self._depth <= 0:
                    return at + 1
        return None


def plain_arguments(value: Any) -> dict[str, Any] | None:
    """`value` as the arguments of a call, if it is an object that can be sent as JSON."""
    try:
        plain = _plain(value)
    except (ValueError, RecursionError):
        return None
    return plain if isinstance(plain, dict) else None


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int():
            return value
        case str():
            value.encode()  # half a surrogate pair is a ValueError
            return value
        case float() if value - value == 0:  # neither infinite nor NaN
            return value
        case list() | tuple():
            return [_plain(item) for item in value]
        case Mapping() if all(isinstance(key, str) for key in value):
            return {_plain(key): _plain(item) for key, item in value.items()}
    raise ValueError("no JSON value")


def _uuid() -> str:
    return str(uuid.uuid4())
