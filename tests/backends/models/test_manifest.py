"""The manifest on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from backends.errors import CorruptModel
from backends.models.manifest import (
    MANIFEST_FILE,
    Manifest,
    ModelFile,
    ModelMetadata,
    ModelSource,
    describe_files,
    digest_of_files,
)

MANIFEST = Manifest(
    name="lab/tiny",
    kind="llm",
    source=ModelSource(kind="gguf", name="tiny.gguf", sha256="a" * 64),
    licence="Apache-2.0",
    precision="int8",
    created_at=datetime(2026, 1, 2, tzinfo=UTC),
    files={"model.onnx": ModelFile(sha256="b" * 64, size=7), "sub/x": ModelFile(sha256="c" * 64, size=5)},
    defaults={"repetition_penalty": 1.1},
    metadata=ModelMetadata(architecture="llama", context_length=8192, kv_bytes_per_token=46_080),
)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_text(MANIFEST.to_json())
    assert Manifest.read(tmp_path) == MANIFEST
    assert MANIFEST.size == 12


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('"schema_version": 1', '"schema_version": 2', "schema_version"),
        ('"kind": "llm"', '"kind": "video"', "kind"),
        ('"licence"', '"license"', "licence"),
        ("b" * 64, "not a digest", "files/model.onnx/sha256"),
        ('"size": 7', '"size": -7', "files/model.onnx/size"),
        ('"context_length": 8192', '"context_length": 0', "metadata/context_length"),
    ],
)
def test_a_manifest_that_breaks_the_schema_is_refused_with_the_place(
    tmp_path: Path, old: str, new: str, place: str
) -> None:
    text = MANIFEST.to_json()
    assert old in text
    (tmp_path / MANIFEST_FILE).write_text(text.replace(old, new))
    with pytest.raises(CorruptModel, match=f"{MANIFEST_FILE}: {place}: "):
        Manifest.read(tmp_path)


def test_files_are_described_without_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"")
    (tmp_path / MANIFEST_FILE).write_text("{}")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert describe_files(tmp_path) == {"sub/a": ModelFile(sha256=empty, size=0)}


def test_the_digest_of_files_depends_on_names_and_contents_and_not_on_their_order() -> None:
    files = [("a", "1"), ("b", "2")]
    assert digest_of_files(files) == digest_of_files(reversed(files))
    assert len({digest_of_files(f) for f in (files, [("a", "2"), ("b", "1")], [("a", "1")], [])}) == 4
