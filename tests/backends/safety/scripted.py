"""Models that answer from a script, for the protocols of guards whose weights are not here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backends.context import CallContext
from backends.errors import UnknownReference
from backends.inference import (
    ClassifyRequest,
    ClassifyResult,
    Finish,
    GenerateRequest,
    GenerationEvent,
    ModelLimits,
    TextDelta,
)
from backends.ports import Classifier, JsonObject, Resource, TextGenerator


def shield(name: str = "shield", resource_id: str = "guard", **params: object) -> Resource:
    body: JsonObject = {"params": params}
    return Resource("shield", name, "provider", resource_id, body)


class ScriptedGenerator:
    """Gives the answers in turn and keeps the requests."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.requests: list[GenerateRequest] = []

    def generate(self, context: CallContext, request: GenerateRequest) -> Iterator[GenerationEvent]:
        self.requests.append(request)
        return iter((TextDelta(self._answers.pop(0)), Finish("end_of_turn", 1, 1)))

    def limits(self, model: str) -> ModelLimits:
        return ModelLimits(8192)

    def ping(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing is held."""


class ScriptedClassifier:
    """Gives each text the row it is told to; any other is benign."""

    def __init__(self, labels: Sequence[str], rows: dict[str, tuple[float, ...]]) -> None:
        self._labels = tuple(labels)
        self._rows = rows
        self.texts: list[str] = []

    def classify(self, context: CallContext, request: ClassifyRequest) -> ClassifyResult:
        if request.model == "missing":
            raise UnknownReference("model 'missing' is not in the model store")
        self.texts += request.texts
        benign = (1.0,) + (0.0,) * (len(self._labels) - 1)
        return ClassifyResult(
            self._labels, tuple(self._rows.get(text, benign) for text in request.texts), self._labels[0]
        )

    def ping(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing is held."""


class ScriptedModels:
    """`GuardModels` with one generator, registered as `guard`, and one classifier."""

    def __init__(self, generator: TextGenerator | None = None, classifier: Classifier | None = None) -> None:
        self._generator = generator
        self._classifier = classifier

    def generator(self, context: CallContext, model_id: str, *, where: str) -> tuple[TextGenerator, str]:
        if self._generator is None or "guard" not in model_id.lower():
            raise UnknownReference(f"model {model_id!r} not found; registered: guard", where=where)
        return self._generator, "provider-name"

    def classifier(self) -> Classifier:
        assert self._classifier is not None
        return self._classifier
