"""Which operation of the contract a request means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from generated.operations import OPERATIONS, Operation

# Made by servers, so without slashes. All others are the callers' and may hold any.
_SERVER_MADE = {"agent_id", "session_id", "turn_id", "step_id", "job_id"}


@dataclass(frozen=True, slots=True)
class Route:
    """One path of the contract. operations: by method."""

    path: str
    pattern: re.Pattern[str]
    operations: dict[str, Operation]

    @property
    def literals(self) -> int:
        return sum(not segment.startswith("{") for segment in self.path.split("/"))


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", path)
    pattern = re.escape(parts[0])
    for name, literal in zip(parts[1::2], parts[2::2], strict=True):
        pattern += f"(?P<{name}>{'[^/]+' if name in _SERVER_MADE else '.+'}){re.escape(literal)}"
    return re.compile(pattern, re.DOTALL)


def _routes() -> list[Route]:
    by_path: dict[str, Route] = {}
    for operation in OPERATIONS.values():
        route = by_path.setdefault(operation.path, Route(operation.path, _pattern(operation.path), {}))
        route.operations[operation.method] = operation
    return sorted(by_path.values(), key=lambda route: -route.literals)


ROUTES = _routes()


def route(path: str) -> tuple[Route, dict[str, str]] | None:
    """The route of a decoded path, with what its parameters are; None when the contract has no such path."""
    for candidate in ROUTES:
        if found := candidate.pattern.fullmatch(path):
            return candidate, found.groupdict()
    return None
