"""The model store, on an encoder of a few kilobytes that pip really downloads."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backends.errors import BadRequest, Conflict, CorruptModel, Unavailable, UnknownReference, Unsupported
from backends.models.catalog import PackagedModel
from backends.models.manifest import MANIFEST_FILE, sha256_of
from backends.models.progress import Stage
from backends.models.store import ModelStore, escape_name
from tests.backends.models.conftest import write_tiny_bert


class Stages:
    """A listener that remembers what it was told."""

    def __init__(self) -> None:
        self.seen: list[Stage] = []
        self.reports: list[tuple[Stage, int, int]] = []

    def __call__(self, stage: Stage, done: int, total: int) -> None:
        self.reports.append((stage, done, total))
        if stage not in self.seen:
            self.seen.append(stage)


def test_a_pull_fetches_checks_converts_and_stores(store: ModelStore, tiny: PackagedModel) -> None:
    stages = Stages()
    model = store.pull("lab/tiny", progress=stages)
    assert stages.seen == ["fetch", "check", "unpack", "convert", "store"]
    assert all(0 <= done <= total for _, done, total in stages.reports)
    manifest = model.manifest
    assert (manifest.name, manifest.kind, manifest.licence, manifest.precision) == (
        "lab/tiny",
        "embedding",
        "Apache-2.0",
        "int8",
    )
    assert (manifest.source.kind, manifest.source.name, manifest.source.version, manifest.source.sha256) == (
        "package",
        "tiny-model",
        "1.0",
        tiny.sha256,
    )
    assert (manifest.metadata.embedding_dimension, manifest.metadata.context_length) == (32, 16)
    assert {"model.onnx", "model.onnx.data", "config.json", "tokenizer.json"} == set(manifest.files)
    for name, file in manifest.files.items():
        assert (file.sha256, file.size) == (sha256_of(model.path / name), (model.path / name).stat().st_size)


def test_what_was_pulled_is_there_for_another_process(store: ModelStore) -> None:
    store.pull("lab/tiny")
    other = ModelStore(store.root, catalog={})
    assert "lab/tiny" in other
    assert [model.name for model in other.list()] == ["lab/tiny"]
    assert other.get("lab/tiny") == store.get("lab/tiny")
    assert other.path("lab/tiny") == store.root / "lab%2Ftiny"
    other.verify("lab/tiny")


def test_a_second_pull_does_nothing_and_needs_no_index(store: ModelStore, index: Path) -> None:
    first = store.pull("lab/tiny")
    shutil.rmtree(index)
    stages = Stages()
    assert store.pull("lab/tiny", progress=stages) == first
    assert stages.seen == []


def test_a_pull_leaves_nothing_but_the_model(store: ModelStore, tiny_bert: Path) -> None:
    store.pull(str(tiny_bert))
    assert list((store.root / ".staging").iterdir()) == []
    assert sorted(path.name for path in store.root.iterdir()) == [".locks", ".staging", "tiny-bert"]


def test_an_archive_with_another_digest_is_refused_and_nothing_is_stored(store: ModelStore) -> None:
    with pytest.raises(CorruptModel, match=r"sha256 .* pins 0000"):
        store.pull("lab/forged")
    assert "lab/forged" not in store
    assert list((store.root / ".staging").iterdir()) == []


def test_an_index_without_the_wheel_is_named_with_pips_own_words(store: ModelStore, index: Path) -> None:
    shutil.rmtree(index)
    index.mkdir()
    with pytest.raises(Unavailable, match=r"tiny-model==1\.0.*No matching distribution.*PIP_FIND_LINKS") as raised:
        store.pull("lab/tiny")
    assert raised.value.retry_after_s is None
    assert "lab/tiny" not in store


def test_another_precision_replaces_the_stored_one_and_no_precision_keeps_it(store: ModelStore) -> None:
    small = store.pull("lab/tiny").manifest
    large = store.pull("lab/tiny", precision="fp32").manifest
    assert (small.precision, large.precision) == ("int8", "fp32")
    assert large.size > small.size
    assert store.pull("lab/tiny").manifest == large
    store.verify("lab/tiny")


def test_a_changed_converter_makes_a_pull_convert_again(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.pull("lab/tiny")
    monkeypatch.setattr("backends.models.store.CONVERTER", "onnxstack test")
    stages = Stages()
    assert store.pull("lab/tiny", progress=stages).manifest.metadata.converter == "onnxstack test"
    assert "convert" in stages.seen


def test_a_precision_that_encoders_lack_is_refused_by_name(store: ModelStore) -> None:
    with pytest.raises(Unsupported, match="int4"):
        store.pull("lab/tiny", precision="int4")
    assert list((store.root / ".staging").iterdir()) == []


def test_a_folder_is_pulled_under_its_own_name_with_the_licence_of_its_card(store: ModelStore, tiny_bert: Path) -> None:
    manifest = store.pull(str(tiny_bert)).manifest
    assert (manifest.name, manifest.licence, manifest.source.kind) == ("tiny-bert", "mit", "folder")
    stages = Stages()
    store.pull(str(tiny_bert), progress=stages)
    assert stages.seen == []


def test_a_name_is_not_given_to_another_source(store: ModelStore, tiny_bert: Path, tmp_path: Path) -> None:
    store.pull(str(tiny_bert), name="mine")
    other = write_tiny_bert(tmp_path / "other", seed=1)
    with pytest.raises(Conflict, match="folder tiny-bert; remove it first"):
        store.pull(str(other), name="mine")
    store.remove("mine")
    assert store.pull(str(other), name="mine").manifest.source.name == "other"


def test_a_converted_folder_is_taken_as_it_is(store: ModelStore, tmp_path: Path) -> None:
    original = store.pull("lab/tiny")
    elsewhere = ModelStore(tmp_path / "elsewhere", catalog={})
    copied = elsewhere.pull(str(original.path)).manifest
    assert (copied.name, copied.licence) == ("lab/tiny", "Apache-2.0")
    assert copied.files == original.manifest.files
    elsewhere.verify("lab/tiny")
    with pytest.raises(BadRequest, match="comes as int8"):
        elsewhere.pull(str(original.path), precision="fp32")


def test_a_removed_model_is_gone(store: ModelStore, tiny_bert: Path) -> None:
    path = store.pull(str(tiny_bert)).path
    store.remove("tiny-bert")
    assert not path.exists()
    assert "tiny-bert" not in store
    assert store.list() == []
    assert list((store.root / ".staging").iterdir()) == []
    with pytest.raises(UnknownReference):
        store.remove("tiny-bert")


def test_a_model_that_is_not_there_is_named(store: ModelStore) -> None:
    for ask in (store.get, store.path, store.defaults, store.verify, store.remove):
        with pytest.raises(UnknownReference, match="'absent'") as refused:
            ask("absent")
        assert str(store.root) not in refused.value.message
        assert refused.value.internal == str(store.root)
    assert ModelStore(store.root / "nowhere").list() == []


def test_verify_finds_one_flipped_bit(store: ModelStore, tiny_bert: Path) -> None:
    file = store.pull(str(tiny_bert)).path / "model.onnx.data"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptModel) as raised:
        store.verify("tiny-bert")
    assert raised.value.file == "model.onnx.data"


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_cut_or_missing_file_is_seen_before_loading_and_mended_by_a_pull(
    store: ModelStore, tiny_bert: Path, damage: str
) -> None:
    file = store.pull(str(tiny_bert)).path / "model.onnx.data"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    with pytest.raises(CorruptModel) as raised:
        store.path("tiny-bert")
    assert raised.value.file == "model.onnx.data"
    store.pull(str(tiny_bert))
    store.verify("tiny-bert")


@pytest.mark.parametrize("content", ["", "{}", "[", '{"schema_version": 2}'])
def test_a_manifest_that_cannot_be_read_is_reported_and_left_out_of_the_list(
    store: ModelStore, tiny_bert: Path, content: str
) -> None:
    (store.pull(str(tiny_bert)).path / MANIFEST_FILE).write_text(content)
    with pytest.raises(CorruptModel) as raised:
        store.get("tiny-bert")
    assert raised.value.file == MANIFEST_FILE
    assert store.list() == []
    store.pull(str(tiny_bert))
    assert [model.name for model in store.list()] == ["tiny-bert"]


def test_defaults_are_those_of_the_catalogue_over_those_of_the_model(
    tmp_path: Path, tiny: PackagedModel, store: ModelStore
) -> None:
    catalog = {"x": replace(tiny, name="x", defaults={"repetition_penalty": 1.1})}
    own = ModelStore(tmp_path / "own", catalog=catalog)
    own.pull("x")
    assert own.defaults("x") == {"repetition_penalty": 1.1}
    store.pull("lab/tiny")
    assert store.defaults("lab/tiny") == {}


def test_the_time_of_a_pull_is_kept(tmp_path: Path, tiny_bert: Path) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    store = ModelStore(tmp_path / "store", now=lambda: moment)
    store.pull(str(tiny_bert))
    assert store.get("tiny-bert").manifest.created_at == moment


def test_a_manifest_is_plain_json_with_its_schema_version(store: ModelStore, tiny_bert: Path) -> None:
    manifest = json.loads((store.pull(str(tiny_bert)).path / MANIFEST_FILE).read_text())
    assert manifest["schema_version"] == 1
    assert str(store.root) not in json.dumps(manifest)


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB%2FSmolLM2-135M-Instruct"),
        ("a/b/c", "a%2Fb%2Fc"),
        (".hidden", "%2Ehidden"),
        (".staging", "%2Estaging"),
        ("...", "%2E.."),
        ("a%2Fb", "a%252Fb"),
        ("a::b", "a%3A%3Ab"),
        ("back\\slash", "back%5Cslash"),
        ("modèle 東京", "mod%C3%A8le%20%E6%9D%B1%E4%BA%AC"),
        ("~root", "~root"),
        ("x" * 200, "x" * 200),
    ],
)
def test_a_name_becomes_one_visible_directory(name: str, directory: str) -> None:
    assert escape_name(name) == directory


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/etc",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        "a\0b",
        "a\nb",
        "\ud800",
        "x" * 201,
        "東" * 23,
    ],
)
def test_a_name_that_could_leave_the_root_or_not_be_stored_is_refused(
    store: ModelStore, tiny_bert: Path, name: str
) -> None:
    for ask in (store.get, store.path, store.defaults, store.verify, store.remove, store.__contains__):
        with pytest.raises(BadRequest, match="model name"):
            ask(name)
    with pytest.raises(BadRequest, match="model name"):
        store.pull(str(tiny_bert), name=name)
    assert not store.root.exists()


def test_models_with_odd_names_are_listed_by_those_names(store: ModelStore, tiny_bert: Path) -> None:
    names = sorted([".hidden", "a/b", "modèle 東京", "a%2Fb"])
    for name in names:
        store.pull(str(tiny_bert), name=name)
    assert [model.name for model in store.list()] == names
