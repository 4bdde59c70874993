"""`inline::prompt-guard`: text classifiers that tell injections and jailbreaks from harmless texts.

The protocol is that of Meta's Prompt Guard, whose labels are benign, injection (instructions that a document or a tool
result smuggles in) and jailbreak (an attempt to talk the model out of its rules).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from backends.config import Section
from backends.context import CallContext
from backends.errors import BadRequest
from backends.inference import ClassifyRequest, ClassifyResult
from backends.ports import GuardModels, JsonObject, Resource
from backends.safety.conversation import new_texts
from backends.safety.options import options_of
from backends.safety.verdict import classifier_violation
from generated.models import Message, SafetyViolation

INJECTION, JAILBREAK = "injection", "jailbreak"
REFUSAL = "Sorry, I cannot do this."


class PromptGuardSettings(Section):
    """Options of `inline::prompt-guard`, of a shield (`params` of its registration) and, `model` excepted, of a run."""

    model: str | None = Field(
        None,
        min_length=1,
        description="The classifier, by its name in the model store; empty takes the shield's `provider_shield_id`.",
    )
    guard_type: Literal["injection", "jailbreak"] = Field(
        "injection", description="`injection` objects to both kinds of attack, `jailbreak` to that one alone."
    )
    threshold: float = Field(0.9, gt=0, le=1, description="Least probability that is a violation.")


class PromptGuardSafety:
    """Judges what is new in a conversation with a classifier of its three labels."""

    def __init__(self, settings: PromptGuardSettings, models: GuardModels) -> None:
        self._settings = settings
        self._models = models

    def check(self, context: CallContext, shield: Resource) -> None:
        """Return if the shield's model is there and has the labels. Raises BadRequest, UnknownReference."""
        options = options_of(self._settings, shield, {})
        self._classify(context, options.model or shield.provider_resource_id, ())

    def run(
        self, context: CallContext, shield: Resource, messages: Sequence[Message], params: JsonObject
    ) -> SafetyViolation | None:
        """The violation of the worst message, None where all are harmless."""
        options = options_of(self._settings, shield, params)
        result = self._classify(context, options.model or shield.provider_resource_id, tuple(new_texts(messages)))
        harmless = (INJECTION,) if options.guard_type == JAILBREAK else ()
        return classifier_violation(result, threshold=options.threshold, user_message=REFUSAL, harmless=harmless)

    def _classify(self, context: CallContext, model: str, texts: tuple[str, ...]) -> ClassifyResult:
        result = self._models.classifier().classify(context, ClassifyRequest(model, texts))
        if sorted(result.labels) != sorted((result.benign, INJECTION, JAILBREAK)):
            raise BadRequest(
                f"model {model!r} has the labels {', '.join(result.labels)}; a prompt guard has {result.benign}, "
                f"{INJECTION} and {JAILBREAK}"
            )
        return result
