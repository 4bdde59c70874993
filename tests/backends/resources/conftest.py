"""A stack of in-memory providers on a real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.config import ApiName, BackendSettings, ProviderSettings
from backends.context import CallContext
from backends.ports import VectorIndex
from backends.providers import APIS
from backends.stack import Backends, open_backends
from generated.models import RegisterModelRequest


def settings_of(tmp_path: Path, database: str = "", apis: tuple[ApiName, ...] = APIS) -> BackendSettings:
    """Every API served by its in-memory form, state in SQLite or where `database` says."""
    return BackendSettings(
        data_dir=tmp_path,
        database_url=database,
        providers=tuple(
            ProviderSettings(api=api, provider_id="memory", provider_type="inline::memory") for api in apis
        ),
    )


@pytest.fixture(params=["memory://", ""], ids=["memory", "sqlite"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backends]:
    opened = open_backends(settings_of(tmp_path, request.param))
    yield opened
    opened.close()


@pytest.fixture
def index(stack: Backends) -> VectorIndex:
    """The vector index behind the stack."""
    vectors = stack.providers.resolve("vector_io", "memory").vectors
    assert vectors is not None
    return vectors


@pytest.fixture
def embedding_model(stack: Backends, context: CallContext) -> str:
    """An embedding model of 384 dimensions."""
    stack.models.register(context, RegisterModelRequest(model_id="embed", model_type="embedding"))
    return "embed"
