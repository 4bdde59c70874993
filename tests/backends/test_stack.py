from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from backends.config import BackendSettings, ProviderSettings
from backends.context import CallContext
from backends.errors import BadRequest, Conflict, Misconfigured, Unavailable
from backends.inference import EmbedRequest
from backends.models.store import ModelStore
from backends.ports import VectorChunk
from backends.stack import DEFAULT_MODELS, Backends, open_backends
from generated.models import RegisterModelRequest, RegisterVectorDbRequest
from tests.backends.lance.vector_suite import tables_of
from tests.backends.openai.stand_in import listing, serving
from tests.backends.resources.conftest import settings_of

EMBEDDING_MODEL = DEFAULT_MODELS[1][0]


def test_an_open_stack_names_its_services_and_its_version(tmp_path: Path) -> None:
    stack = open_backends(settings_of(tmp_path), version="1.2.3")
    assert stack.version == "1.2.3"
    assert set(stack.services()) == {
        "store",
        "inference:memory:generator",
        "inference:memory:embedder",
        "inference:memory:classifier",
        "vector_io:memory:vectors",
        "agents:memory:agents",
        "datasetio:memory:rows",
        "telemetry:memory:telemetry",
    }
    for service in stack.services().values():
        service.ping()
    stack.close()
    stack.close()


def test_a_start_asks_no_upstream_and_names_them_apart(tmp_path: Path, context: CallContext) -> None:
    with serving() as upstream:
        upstream.listing = listing(*(name for name, _ in DEFAULT_MODELS))
        remote = ProviderSettings(
            api="inference", provider_id="gpu", provider_type="remote::openai", config={"base_url": upstream.url}
        )
        settings = settings_of(tmp_path)
        stack = open_backends(settings.model_copy(update={"providers": (remote, *settings.providers)}))
        assert upstream.received == []
        assert {model.provider_id for model in stack.models.list(context)} == {"memory"}
        assert set(stack.upstreams()) == {"inference:gpu:generator", "inference:gpu:embedder"}
        assert not set(stack.upstreams()) & set(stack.services())
        stack.close()


def test_two_processes_share_what_either_registers(tmp_path: Path, context: CallContext) -> None:
    first, second = open_backends(settings_of(tmp_path)), open_backends(settings_of(tmp_path))
    first.vector_dbs.register(context, RegisterVectorDbRequest(vector_db_id="db", embedding_model=EMBEDDING_MODEL))
    assert second.vector_dbs.get(context, "db") == first.vector_dbs.get(context, "db") is not None
    first.close()
    second.close()


def test_the_memory_profile_writes_no_file(tmp_path: Path) -> None:
    open_backends(settings_of(tmp_path / "none", "memory://")).close()
    assert list(tmp_path.iterdir()) == []


def test_a_start_drops_the_tables_that_a_kill_left(tmp_path: Path, context: CallContext) -> None:
    stack = open_backends(settings_of(tmp_path))
    stack.vector_dbs.register(context, RegisterVectorDbRequest(vector_db_id="db", embedding_model=EMBEDDING_MODEL))
    row = stack.store.get(context, "vector_db", "db")
    assert row is not None
    stack.store.put(context, remove=[("vector_db", "db")])  # as far as a killed unregister came
    stack.close()
    stack = open_backends(settings_of(tmp_path))
    assert list(stack.store.unclaimed()) == []
    stack.close()


def test_a_database_of_a_newer_release_stops_the_start(tmp_path: Path) -> None:
    open_backends(settings_of(tmp_path)).close()
    connection = sqlite3.connect(tmp_path / "state.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(Unavailable, match="revision 9999, this release knows revisions up to 0004"):
        open_backends(settings_of(tmp_path))


def test_settings_that_name_an_unknown_type_stop_the_start(tmp_path: Path) -> None:
    entry = ProviderSettings(api="eval", provider_id="x", provider_type="inline::nothing")
    with pytest.raises(Misconfigured, match="inline::nothing"):
        open_backends(BackendSettings(data_dir=tmp_path, providers=(entry,)))


def test_fifty_openings_leave_no_file_and_no_thread(tmp_path: Path) -> None:

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc on this system")
    stack: Backends = open_backends(settings_of(tmp_path))
    stack.close()
    before = held()
    for _ in range(50):
        stack = open_backends(settings_of(tmp_path))
        stack.close()
    after = held()
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1] + 2


def test_the_default_models_register_from_the_model_store(
    tmp_path: Path, context: CallContext, model_store: ModelStore
) -> None:
    onnx = ProviderSettings(api="inference", provider_id="onnx", provider_type="inline::onnx")
    stack = open_backends(BackendSettings(data_dir=tmp_path, models_dir=model_store.root, providers=(onnx,)))
    assert [(model.identifier, model.provider_id, model.metadata) for model in stack.models.list(context)] == [
        (DEFAULT_MODELS[0][0], "onnx", {}),
        (EMBEDDING_MODEL, "onnx", {"embedding_dimension": 384}),
    ]
    with pytest.raises(BadRequest, match=f"no model 'gpt' of type llm; available: {DEFAULT_MODELS[0][0]}$"):
        stack.models.register(context, RegisterModelRequest(model_id="gpt"))
    with pytest.raises(BadRequest, match="embedding_dimension is 3, the vectors of model"):
        stack.models.register(
            context,
            RegisterModelRequest(
                model_id="mine",
                provider_model_id=EMBEDDING_MODEL,
                model_type="embedding",
                metadata={"embedding_dimension": 3},
            ),
        )
    stack.close()


def test_a_model_store_without_the_default_models_starts_without_them(tmp_path: Path, context: CallContext) -> None:
    onnx = ProviderSettings(api="inference", provider_id="onnx", provider_type="inline::onnx")
    stack = open_backends(BackendSettings(data_dir=tmp_path, providers=(onnx,)))
    assert stack.models.list(context) == []
    stack.close()


def test_a_vector_db_on_lancedb_is_filled_survives_a_restart_and_takes_its_data_along(
    tmp_path: Path, context: CallContext
) -> None:
    settings = BackendSettings(
        data_dir=tmp_path,
        providers=(
            ProviderSettings(api="inference", provider_id="memory", provider_type="inline::memory"),
            ProviderSettings(api="vector_io", provider_id="lancedb", provider_type="inline::lancedb"),
        ),
    )
    stack = open_backends(settings)
    stack.vector_dbs.register(context, RegisterVectorDbRequest(vector_db_id="a/b", embedding_model=EMBEDDING_MODEL))
    db = stack.vector_dbs.open(context, "a/b")
    vectors = db.embedder.embed(context, EmbedRequest(db.model, ("one", "two"))).vectors()
    db.index.insert(context, db.table, [VectorChunk("one", {"n": 1}), VectorChunk("two", {"n": 2})], vectors)
    stack.close()
    stack = open_backends(settings)
    with pytest.raises(Conflict, match="holds 2 chunks"):
        stack.models.register(context, RegisterModelRequest(model_id="other", model_type="embedding"))
        stack.vector_dbs.register(context, RegisterVectorDbRequest(vector_db_id="a/b", embedding_model="other"))
    db = stack.vector_dbs.open(context, "a/b")
    found = db.index.query(context, db.table, vectors[1], max_chunks=1)
    assert [hit.chunk.metadata for hit in found] == [{"n": 2}]
    stack.vector_dbs.unregister(context, "a/b")
    assert tables_of(db.index) == []
    stack.close()
