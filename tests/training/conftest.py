"""The product as it comes, with a model store of its own: training adds models to it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.models.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_GUARD_MODEL, DEFAULT_LLM
from backends.models.store import ModelStore
from tests.servers import RunningServer, running


@pytest.fixture(scope="session")
def own_models(tmp_path_factory: pytest.TempPathFactory, model_store: ModelStore) -> Path:
    """A model store that may be written to, with copies of the default models."""
    root = tmp_path_factory.mktemp("models")
    for name in (DEFAULT_LLM, DEFAULT_EMBEDDING_MODEL, DEFAULT_GUARD_MODEL):
        path = model_store.path(name)
        shutil.copytree(path, root / path.relative_to(model_store.root))
    return root


@pytest.fixture(scope="session")
def training_server(tmp_path_factory: pytest.TempPathFactory, own_models: Path) -> Iterator[RunningServer]:
    """The product with its default providers, where synthetic answers are short."""
    settings = {
        "ONNXSTACK_MODELS_DIR": str(own_models),
        "ONNXSTACK_SYNTHETIC__MAX_TOKENS": "40",
        "ONNXSTACK_SYNTHETIC__CANDIDATES": "2",
        "ONNXSTACK_SYNTHETIC__KEEP": "1",
    }
    with running(tmp_path_factory.mktemp("training-server"), environment=settings) as server:
        yield server
