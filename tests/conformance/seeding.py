"""How faults are written down: a function that changes one thing, under a decorator that says which and where.

The name of the function is the name of the fault. A server may answer otherwise than a fault expects; then the answer
stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from generated.operations import OPERATIONS
from tests.conformance.tampering import Answer, Ask, Fault, Request, Tamper

F = TypeVar("F", bound=Callable[..., Any])
FAULTS: dict[str, Fault] = {}
_OTHERWISE = (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError)


class Seeds:
    """The decorators, for one collection of faults."""

    def __init__(self, collection: dict[str, Fault]) -> None:
        self.collection = collection

    def _seed(self, name: str, operations: tuple[str, ...], says: str, apply: Callable[[], Tamper]) -> None:
        unknown = set(operations) - set(OPERATIONS)
        if unknown or name in self.collection or not operations:
            raise ValueError(f"{name}: {unknown or 'no operation, or a name that is taken'}")
        self.collection[name] = Fault(name, operations, says, apply)

    def remembering(self, *operations: str, says: str) -> Callable[[Callable[[], Tamper]], Callable[[], Tamper]]:
        """The function makes a tamperer of all exchanges."""

        def seeded(make: Callable[[], Tamper]) -> Callable[[], Tamper]:
            self._seed(make.__name__, operations, says, make)
            return make

        return seeded

    def answered(self, *operations: str, says: str) -> Callable[[F], F]:
        """The function makes another answer of a request and its answer."""

        def seeded(change: F) -> F:
            self._answers(change.__name__, operations, says, change)
            return change

        return seeded

    def whole(self, *operations: str, says: str) -> Callable[[F], F]:
        """The function makes another value of the JSON of a good answer; it may change it in place."""

        def seeded(change: F) -> F:
            def changed(request: Request, answer: Answer) -> Answer:
                return answer.with_json(change(answer.json())) if answer.whole else answer

            self._answers(change.__name__, operations, says, changed)
            return change

        return seeded

    def streamed(self, *operations: str, says: str) -> Callable[[F], F]:
        """The function makes other events of a stream; it may change them in place."""

        def seeded(change: F) -> F:
            def changed(request: Request, answer: Answer) -> Answer:
                return answer.with_events(change(answer.events())) if answer.streams else answer

            self._answers(change.__name__, operations, says, changed)
            return change

        return seeded

    def _answers(
        self, name: str, operations: tuple[str, ...], says: str, change: Callable[[Request, Answer], Answer]
    ) -> None:
        async def tamper(request: Request, ask: Ask) -> Answer:
            answer = await ask(request)
            if not request.touched & set(operations):
                return answer
            try:
                return change(request, answer)
            except _OTHERWISE:
                return answer

        self._seed(name, operations, says, lambda: tamper)

    def asked(self, *operations: str, says: str) -> Callable[[F], F]:
        """The function makes another request, which the server answers; or the answer, and the server hears nothing."""

        def seeded(change: F) -> F:
            async def tamper(request: Request, ask: Ask) -> Answer:
                if request.operation not in operations:
                    return await ask(request)
                try:
                    changed = change(request)
                except _OTHERWISE:
                    changed = request
                return changed if isinstance(changed, Answer) else await ask(changed)

            self._seed(change.__name__, operations, says, lambda: tamper)
            return change

        return seeded


_seeds = Seeds(FAULTS)
remembering, answered, whole = _seeds.remembering, _seeds.answered, _seeds.whole
streamed, asked = _seeds.streamed, _seeds.asked
