"""How a connection that is not permitted gets through the HTTP library to who asked for it."""

from __future__ import annotations

from backends.errors import Forbidden

PORTS = (80, 443)
"""Ports that clients may name without being allowed them; 8080 and the like are where internal services listen."""


class RefusedHost(Exception):
    """A connection that is not permitted, from within the HTTP library. `error`: what to answer."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def refusal_in(error: BaseException | None) -> Forbidden | None:
    """The refusal behind an error of the HTTP library, if there is one."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, RefusedHost):
            return error.error if isinstance(error.error, Forbidden) else None
        if isinstance(error, BaseExceptionGroup):
            return next((found for inner in error.exceptions if (found := refusal_in(inner)) is not None), None)
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None
