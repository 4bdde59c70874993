"""Servers for the fault tests, as `onnxstack serve` starts them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backends.models.store import ModelStore
from tests.backends.conftest import postgres
from tests.faults.wire import EventStream, endless
from tests.servers import RunningServer, running

__all__ = ["postgres"]

STREAMS = 200


@pytest.fixture(scope="session")
def real_models(model_store: ModelStore) -> dict[str, str]:
    """The setting with which a server uses the models that are pulled already."""
    return {"ONNXSTACK_MODELS_DIR": str(model_store.root)}


@pytest.fixture(scope="session")
def one_slot_server(tmp_path_factory: pytest.TempPathFactory, real_models: dict[str, str]) -> Iterator[RunningServer]:
    """A real model that answers one at a time while up to 200 callers wait, so that streams stay open without load."""
    settings = {
        "ONNXSTACK_ENGINE__SLOTS": "1",
        "ONNXSTACK_ENGINE__QUEUE": str(STREAMS),
        "ONNXSTACK_LIMITS__GENERATIONS": str(STREAMS),
        "ONNXSTACK_SERVER__THREADS": str(STREAMS + 50),
        "ONNXSTACK_SERVER__PING_INTERVAL_S": "0.5",
        "ONNXSTACK_LOG__FORMAT": "json",
    }
    with running(tmp_path_factory.mktemp("one-slot"), environment={**real_models, **settings}) as server:
        yield server


@pytest.fixture
def busy(one_slot_server: RunningServer) -> Iterator[EventStream]:
    """A generation that holds the only slot; it would take minutes to end by itself."""
    with EventStream(one_slot_server, "/v1/inference/completion", endless(8000)) as stream:
        stream.first_event()
        yield stream
