"""Trained weights into the model store, as a model of their own that says where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backends.models.manifest import ModelKind, ModelSource, Precision
from backends.models.progress import Progress
from backends.models.store import StoredModel
from backends.onnx.convert import convert_trained
from backends.onnx.convert.decoder import DecoderSource


class TrainedSource:
    """A `Source` of the model store: new weights in the surroundings of the model that was trained.

    job_id, epoch: who made them.
    """

    kind: ModelKind = "llm"

    def __init__(
        self, base: StoredModel, decoder: DecoderSource, precision: Precision, job_id: str, epoch: int
    ) -> None:
        manifest = base.manifest
        self._base = base
        self._decoder = decoder
        self.fixed_precision: Precision | None = precision
        self.licence = manifest.licence
        self.defaults: Mapping[str, float] = manifest.defaults
        self.default_name = f"{job_id}-{epoch}"
        self.identity = ModelSource(
            kind="training", name=f"{base.name} by {job_id}", version=str(epoch), sha256=manifest.source.sha256
        )

    def build(self, staging: Path, target: Path, precision: Precision, progress: Progress) -> None:
        progress("convert", 0, 1)
        convert_trained(self._base.path, self._decoder, target, precision=precision)
        progress("convert", 1, 1)
