"""`inline::guardian`: the shield that works at once, on the default guard model."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from backends.config import Section
from backends.context import CallContext
from backends.inference import ClassifyRequest
from backends.models.catalog import DEFAULT_GUARD_MODEL
from backends.ports import GuardModels, JsonObject, Resource
from backends.safety.conversation import new_texts
from backends.safety.options import options_of
from backends.safety.verdict import classifier_violation
from generated.models import Message, SafetyViolation

REFUSAL = "I can't answer that. Can I help with something else?"


class GuardianSettings(Section):
    """Options of `inline::guardian`, of a shield (`params` of its registration) and, `model` excepted, of a run."""

    model: str = Field(DEFAULT_GUARD_MODEL, min_length=1, description="The classifier, by its name in the model store.")
    threshold: float = Field(
        0.807, gt=0, le=1, description="Least probability of anything but a harmless text that is a violation."
    )


class GuardianSafety:
    """Judges what is new in a conversation with a text classifier."""

    def __init__(self, settings: GuardianSettings, models: GuardModels) -> None:
        self._settings = settings
        self._models = models

    def check(self, context: CallContext, shield: Resource) -> None:
        """Return if the shield's model is there. Raises BadRequest, UnknownReference."""
        options = options_of(self._settings, shield, {})
        self._models.classifier().classify(context, ClassifyRequest(options.model, ()))

    def run(
        self, context: CallContext, shield: Resource, messages: Sequence[Message], params: JsonObject
    ) -> SafetyViolation | None:
        """The violation of the worst message, None where all are harmless."""
        options = options_of(self._settings, shield, params)
        request = ClassifyRequest(options.model, tuple(new_texts(messages)))
        result = self._models.classifier().classify(context, request)
        return classifier_violation(result, threshold=options.threshold, user_message=REFUSAL)
