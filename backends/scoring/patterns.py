"""Patterns that requests bring, on an engine whose time is linear in the text, whatever the pattern."""

from __future__ import annotations

from collections.abc import Sequence

import re2

from backends.errors import BadRequest

MAX_PATTERNS = 256
MAX_PATTERN_LENGTH = 4096
MAX_PROGRAM_BYTES = 8 << 20


class Patterns:
    """Patterns that are tried in their order; each has a group, whose text is the answer."""

    def __init__(self, patterns: Sequence[str], *, where: str) -> None:
        """Compile them. `where`: JSON pointer of the list.

        Raises:
            BadRequest: too many, too long, without a group, or what RE2 cannot do (look-around, backreferences).
        """
        if len(patterns) > MAX_PATTERNS:
            raise BadRequest(f"at most {MAX_PATTERNS} patterns are taken, got {len(patterns)}", where=where)
        self._compiled = [_compiled(pattern, f"{where}/{i}") for i, pattern in enumerate(patterns)]

    def find(self, text: str) -> str | None:
        """Group 1 of the first pattern that is found anywhere in the text; None where none is."""
        # Half a surrogate pair has no UTF-8, which is what RE2 reads.
        readable = text.encode("utf-8", "replace").decode("utf-8")
        for pattern in self._compiled:
            found = pattern.search(readable)
            if found is not None and found.group(1) is not None:
                return str(found.group(1))
        return None


def _compiled(pattern: str, where: str) -> re2._Regexp:
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise BadRequest(f"a pattern has at most {MAX_PATTERN_LENGTH} characters", where=where)
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_PROGRAM_BYTES
    try:
        compiled = re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        raise BadRequest(
            f"pattern {pattern!r} is not one of RE2's, which has no look-around, backreferences or repetitions above "
            "1000 (github.com/google/re2/wiki/Syntax)",
            where=where,
            internal=str(error),
        ) from None
    if compiled.groups < 1:
        raise BadRequest(f"pattern {pattern!r} needs a group (...) around the answer", where=where)
    return compiled
