"""Fixtures of the whole suite: the default models, pulled and converted once, and a call context."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from backends.context import CallContext
from backends.models.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_GUARD_MODEL, DEFAULT_LLM
from backends.models.manifest import digest_of_files, sha256_of
from backends.models.store import ModelStore
from tests.benchmark_wheels import wheels
from tests.servers import memory_server, real_server

__all__ = ["memory_server", "real_server", "wheels"]

pytest_plugins = ["tests.plugins.exclusions", "tests.plugins.tiers"]

_ROOT = Path(__file__).parent.parent
_DAY_S = 86_400


@pytest.fixture(scope="session")
def model_store() -> ModelStore:
    """A store that holds the default models. Do not change it: all tests, processes and later runs share it.

    It lies in `$ONNXSTACK_TEST_CACHE` or `~/.cache/onnxstack-tests`, one directory for each state of the converter's
    source, so that a changed converter never serves an old graph. The first run fetches 178 MB with pip.
    """
    cache = Path(os.environ.get("ONNXSTACK_TEST_CACHE") or Path.home() / ".cache" / "onnxstack-tests")
    sources = [*(_ROOT / "backends" / "onnx" / "convert").glob("*.py"), _ROOT / "backends" / "onnx" / "config.py"]
    root = cache / digest_of_files((path.name, sha256_of(path)) for path in sources)[:16]
    root.mkdir(parents=True, exist_ok=True)
    os.utime(root)
    for other in cache.iterdir():
        if other.stat().st_mtime < time.time() - _DAY_S:
            shutil.rmtree(other, ignore_errors=True)
    store = ModelStore(root)
    store.pull(DEFAULT_LLM)
    store.pull(DEFAULT_EMBEDDING_MODEL)
    store.pull(DEFAULT_GUARD_MODEL)
    return store


@pytest.fixture(scope="session")
def smollm2_dir(model_store: ModelStore) -> Path:
    """Directory of the default language model, int8."""
    return model_store.path(DEFAULT_LLM)


@pytest.fixture(scope="session")
def minilm_dir(model_store: ModelStore) -> Path:
    """Directory of the default embedding model, int8."""
    return model_store.path(DEFAULT_EMBEDDING_MODEL)


@pytest.fixture(scope="session")
def guardian_dir(model_store: ModelStore) -> Path:
    """Directory of the default guard model."""
    return model_store.path(DEFAULT_GUARD_MODEL)


@pytest.fixture
def context() -> CallContext:
    """A call that nobody cancels and that may take as long as it needs."""
    return CallContext(request_id="test")
