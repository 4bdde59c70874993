"""How faults are written down: a function that changes one thing, under a decorator that says which and where.

The name of the function is the name of the fault. A server may answer otherwise than a fault expects; then the answer
stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generated.operations import OPERATIONS
from tests.conformance.tampering import Answer, Ask, Fault, Request, Tamper

FAULTS: dict[str, Fault] = {}
_OTHERWISE = (AttributeError, IndexError, KeyError, TypeError, ValueError)


def _seed(name: str, operations: tuple[str, ...], says: str, apply: Callable[[], Tamper]) -> None:
    unknown = set(operations) - set(OPERATIONS)
    if unknown or name in FAULTS or not operations:
        raise ValueError(f"{name}: {unknown or 'no operation, or a name that is taken'}")
    FAULTS[name] = Fault(name, operations, says, apply)


def remembering(*operations: str, says: str) -> Callable[[Callable[[], Tamper]], Callable[[], Tamper]]:
    """The function makes a tamperer of all exchanges."""

    def seeded(make: Callable[[], Tamper]) -> Callable[[], Tamper]:
        _seed(make.__name__, operations, says, make)
        return make

    return seeded


def answered(
    *operations: str, says: str
) -> Callable[[Callable[[Request, Answer], Answer]], Callable[[Request, Answer], Answer]]:
    """The function makes another answer."""

    def seeded(change: Callable[[Request, Answer], Answer]) -> Callable[[Request, Answer], Answer]:
        async def tamper(request: Request, ask: Ask) -> Answer:
            answer = await ask(request)
            if not request.touched & set(operations):
                return answer
            try:
                return change(request, answer)
            except _OTHERWISE:
                return answer

        _seed(change.__name__, operations, says, lambda: tamper)
        return change

    return seeded


def whole(*operations: str, says: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """The function makes another value of the JSON of a good answer; it may change it in place."""

    def seeded(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def changed(request: Request, answer: Answer) -> Answer:
            return answer.with_json(change(answer.json())) if answer.whole else answer

        changed.__name__ = change.__name__
        answered(*operations, says=says)(changed)
        return change

    return seeded


def streamed(*operations: str, says: str) -> Callable[[Callable[[list[Any]], Any]], Callable[[list[Any]], Any]]:
    """The function makes other events of a stream."""

    def seeded(change: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
        def changed(request: Request, answer: Answer) -> Answer:
            return answer.with_events(change(answer.events())) if answer.streams else answer

        changed.__name__ = change.__name__
        answered(*operations, says=says)(changed)
        return change

    return seeded


def asked(
    *operations: str, says: str
) -> Callable[[Callable[[Request], Request | Answer]], Callable[[Request], Request | Answer]]:
    """The function makes another request, which the server answers; or the answer, and the server hears nothing."""

    def seeded(change: Callable[[Request], Request | Answer]) -> Callable[[Request], Request | Answer]:
        async def tamper(request: Request, ask: Ask) -> Answer:
            if request.operation not in operations:
                return await ask(request)
            try:
                changed = change(request)
            except _OTHERWISE:
                changed = request
            return changed if isinstance(changed, Answer) else await ask(changed)

        _seed(change.__name__, operations, says, lambda: tamper)
        return change

    return seeded
