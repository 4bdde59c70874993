"""A call on a stack of in-memory providers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.config import BackendSettings, ProviderSettings
from backends.context import CallContext
from backends.providers import APIS
from backends.stack import open_backends
from handlers.call import Call


@pytest.fixture
def call(context: CallContext, tmp_path: Path) -> Iterator[Call]:
    """Every API is served by its in-memory form; state lies in a SQLite file."""
    providers = tuple(ProviderSettings(api=api, provider_id="memory", provider_type="inline::memory") for api in APIS)
    backends = open_backends(BackendSettings(data_dir=tmp_path, providers=providers), version="1.2.3")
    yield Call(context, backends)
    backends.close()
