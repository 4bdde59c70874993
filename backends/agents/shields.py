"""The shields of one place in a turn, run side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from backends.context import CallContext
from backends.ports import JsonObject
from backends.resources import Shields
from generated.models import Message, SafetyViolation, ShieldCallStep

REFUSAL = "I can't answer that. Can I help with something else?"
"""What is said where a shield objects and does not say what to say."""


def judge(
    context: CallContext, shields: Shields, shield_ids: Sequence[str], messages: Sequence[Message], where: str
) -> SafetyViolation | None:
    """The worst that the shields have to say: the first that stops a turn, else the first there is, else None.

    where: JSON pointer of the shields.

    Raises:
        StackError: a shield that could not judge; what is not judged is never taken for harmless.
    """

    def run(position: int) -> SafetyViolation | None:
        no_options: JsonObject = {}
        return shields.run(context, shield_ids[position], messages, no_options, where=f"{where}/{position}")

    if len(shield_ids) == 1:
        found = [run(0)]
    else:
        with ThreadPoolExecutor(max(1, len(shield_ids)), thread_name_prefix="shield") as pool:
            # Each with a copy of the context variables: the spans of all belong to the span that is current here.
            running = [pool.submit(copy_context().run, run, position) for position in range(len(shield_ids))]
            found = [future.result() for future in running]
    violations = [violation for violation in found if violation is not None]
    return next((violation for violation in violations if stops(violation)), violations[0] if violations else None)


def stops(violation: SafetyViolation | None) -> bool:
    """Whether a violation ends a turn: only one of level `error` does; warnings are recorded."""
    return violation is not None and violation.violation_level == "error"


def refusal(violation: SafetyViolation) -> str:
    """What is said in place of what the shield objected to."""
    return violation.user_message or REFUSAL


def withheld(step: ShieldCallStep) -> str:
    """What the model is told in place of a result that the shields of a step objected to."""
    said = REFUSAL if step.violation is None else refusal(step.violation)
    return f"The result was withheld by a shield: {said}"
