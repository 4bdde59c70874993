"""What an engine serves, opened on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backends.config import EngineSettings
from backends.context import CallContext
from backends.engine.control import ModelControl
from backends.inference import GenerateRequest
from backends.models.manifest import ModelKind
from backends.onnx.scheduler import SchedulerStats
from backends.onnx.sequence import SequenceEvents
from backends.ports import Classifier, Embedder, TextGenerator
from generated.models import ModelType


class StepGenerator(TextGenerator, Protocol):
    """A text generator whose events can be redirected, so that no thread has to wait for those of each request."""

    def generate(self, context: CallContext, request: GenerateRequest) -> SequenceEvents: ...

    def stats(self) -> Mapping[str, SchedulerStats]:
        """Counters by model."""


@dataclass(frozen=True, slots=True)
class EngineParts:
    """models: the names it has of a model type. device: where it computes and why. control: None where models are not
    loaded one by one."""

    generator: StepGenerator
    embedder: Embedder
    models: Callable[[ModelType], Sequence[str]]
    device: Callable[[], str]
    classifier: Classifier | None = None
    control: ModelControl | None = None

    def close(self) -> None:
        """Close every part."""
        for part in (self.generator, self.embedder, self.classifier):
            if part is not None:
                part.close()


def open_parts(models: Path, settings: EngineSettings) -> EngineParts:
    """The engine on the models of a store. Raises Misconfigured."""
    from backends.engine.residents import Residents
    from backends.models.store import ModelStore
    from backends.onnx.classifier import OnnxClassifier
    from backends.onnx.embedder import OnnxEmbedder
    from backends.onnx.generator import OnnxTextGenerator
    from backends.onnx.residency import Residency

    store = ModelStore(models)
    residency = Residency(settings.memory_mb * 1_000_000, settings.keep_alive_s)
    generator = OnnxTextGenerator(store, settings, residency=residency)
    embedder = OnnxEmbedder(store, settings, residency=residency)
    classifier = OnnxClassifier(store, settings, residency=residency)
    loaders: dict[ModelKind, Callable[[str], None]] = {
        "llm": generator.load,
        "embedding": embedder.load,
        "classifier": classifier.load,
    }
    return EngineParts(
        generator,
        embedder,
        lambda kind: [model.name for model in store.list() if model.manifest.kind == kind],
        generator.device,
        classifier,
        Residents(store, residency, loaders),
    )
