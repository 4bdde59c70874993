"""Rules that hold for every kind of resource."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from backends.errors import BadRequest, Conflict

T = TypeVar("T")
MAX_ID_LENGTH = 512
MAX_NAMES = 20
_ATTEMPTS = 8


def check_id(identifier: str, *, where: str) -> str:
    """The id itself: any text of 1 to 512 characters that can be printed; `/` and `::` are fine.

    Raises:
        BadRequest: empty, too long, or with control characters or lone surrogates.
    """
    if not identifier:
        raise BadRequest("an id must not be empty", where=where)
    if len(identifier) > MAX_ID_LENGTH:
        raise BadRequest(f"an id has at most {MAX_ID_LENGTH} characters, this one has {len(identifier)}", where=where)
    for position, character in enumerate(identifier):
        code = ord(character)
        if code < 0x20 or 0x7F <= code <= 0x9F or 0xD800 <= code <= 0xDFFF:
            raise BadRequest(
                f"an id must not hold control characters or lone surrogates; U+{code:04X} is at position {position}",
                where=where,
            )
    return identifier


def id_or(given: str | None, identifier: str, *, where: str) -> str:
    """The provider's own id where the request gives one, else the resource's."""
    return identifier if given is None else check_id(given, where=where)


def name_some(names: list[str]) -> str:
    """`a, b, c` for a message; the first 20 of many, `none` of none."""
    if not names:
        return "none"
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def retry_conflicts(attempt: Callable[[], T]) -> T:
    """Run `attempt`, which reads and then writes under expectations, again while others change what it read.

    Raises:
        Conflict: it lost every time, or the attempt itself finds one that no repetition solves (`where` is set).
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return attempt()
        except Conflict as conflict:
            if conflict.where is not None:
                raise
    return attempt()
