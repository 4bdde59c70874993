"""The Safety port in memory: a word list."""

from __future__ import annotations

from collections.abc import Sequence

from backends.context import CallContext
from backends.inference import ClassifyRequest
from backends.memory.classifier import MemoryClassifier
from backends.ports import JsonObject, Resource
from backends.safety.conversation import new_texts
from backends.safety.verdict import classifier_violation
from generated.models import Message, SafetyViolation


class MemorySafety:
    """Every shield of it calls a message unsafe that holds one of the words of `MemoryClassifier`."""

    def __init__(self) -> None:
        self._classifier = MemoryClassifier()

    def check(self, context: CallContext, shield: Resource) -> None:
        """Takes every shield."""

    def run(
        self, context: CallContext, shield: Resource, messages: Sequence[Message], params: JsonObject
    ) -> SafetyViolation | None:
        """The violation, None where there is none; `params` change nothing."""
        result = self._classifier.classify(context, ClassifyRequest("", tuple(new_texts(messages))))
        return classifier_violation(result, threshold=0.5, user_message="I can't answer that.")
