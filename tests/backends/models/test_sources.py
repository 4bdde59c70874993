"""What a reference means: a name of the catalogue, a GGUF file or a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import pytest

from backends.errors import BadRequest, CorruptModel, Unsupported
from backends.models.catalog import CATALOG, DEFAULT_EMBEDDING_MODEL, DEFAULT_GUARD_MODEL, DEFAULT_LLM
from backends.models.sources import resolve
from backends.models.store import ModelStore


def write_gguf(path: Path, licence: str | None = None) -> Path:
    """A GGUF file without tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    if licence is not None:
        writer.add_license(licence)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [(DEFAULT_LLM, "llm"), (DEFAULT_EMBEDDING_MODEL, "embedding"), (DEFAULT_GUARD_MODEL, "classifier")],
)
def test_a_default_model_is_pinned_to_one_archive(name: str, kind: str) -> None:
    source = resolve(name, CATALOG)
    assert (source.default_name, source.kind, source.licence) == (name, kind, "Apache-2.0")
    assert (source.identity.kind, source.identity.version, source.identity.sha256) == (
        "package",
        CATALOG[name].version,
        CATALOG[name].sha256,
    )


def test_a_name_of_the_catalogue_wins_over_a_folder_of_that_name(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_bert.rename(tmp_path / DEFAULT_EMBEDDING_MODEL)
    monkeypatch.chdir(tmp_path)
    assert resolve(DEFAULT_EMBEDDING_MODEL, CATALOG).identity.kind == "package"
    assert resolve(f"./{DEFAULT_EMBEDDING_MODEL}", CATALOG).identity.kind == "folder"


@pytest.mark.parametrize(("licence", "expected"), [("apache-2.0", "apache-2.0"), (None, "unknown")])
def test_a_gguf_file_is_a_language_model_with_its_own_licence(
    tmp_path: Path, licence: str | None, expected: str
) -> None:
    source = resolve(str(write_gguf(tmp_path / "My-Model.Q8_0.gguf", licence)), CATALOG)
    assert (source.kind, source.licence, source.default_name) == ("llm", expected, "My-Model.Q8_0")
    assert (source.identity.kind, source.identity.name) == ("gguf", "My-Model.Q8_0.gguf")


def test_a_converted_folder_with_a_link_to_elsewhere_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    """Fault 9."""
    store = ModelStore(tmp_path / "store", catalog={})
    folder = tmp_path / "folder"
    shutil.copytree(store.pull(str(tiny_bert), name="words").path, folder)
    store.pull(str(folder), name="whole")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "notes.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(CorruptModel, match=r"notes\.txt: is a link that leaves the model folder"):
        store.pull(str(folder), name="again")


def test_a_file_that_only_claims_to_be_gguf_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"nothing like it")
    with pytest.raises(CorruptModel, match=r"x\.gguf"):
        resolve(str(tmp_path / "x.gguf"), CATALOG)


def test_the_identity_of_a_folder_changes_with_its_files(tiny_bert: Path) -> None:
    before = resolve(str(tiny_bert), CATALOG).identity
    assert resolve(f"{tiny_bert}/", CATALOG).identity == before
    (tiny_bert / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8}))
    assert resolve(str(tiny_bert), CATALOG).identity != before


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlanguage: en\nlicense:   apache-2.0  \ntags:\n- x\n---\n", "apache-2.0"),
        ("# No front matter\nlicense: mit\n", "unknown"),
        ("---\ntags: [license]\n---\nlicense: mit\n", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_licence_of_a_folder_is_that_of_its_card(tiny_bert: Path, card: str, licence: str) -> None:
    (tiny_bert / "README.md").write_text(card)
    assert resolve(str(tiny_bert), CATALOG).licence == licence


@pytest.mark.parametrize("reference", ["", "no-such-model", "org/no-such-model", "/no/such/path", "~nobody-here/x"])
def test_a_reference_to_nothing_is_refused(reference: str, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_bert)  # the empty reference must not mean the working directory
    with pytest.raises(BadRequest):
        resolve(reference, CATALOG)


def test_an_unknown_reference_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadRequest, match=f"known: {DEFAULT_LLM}, {DEFAULT_EMBEDDING_MODEL}"):
        resolve("no-such-model", CATALOG)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"holds no model: expected a \.gguf file or a folder"):
        resolve(str(tmp_path), CATALOG)


@pytest.mark.parametrize("reference", ["a\0b", "\ud800"])
def test_a_reference_that_is_no_text_is_refused(reference: str) -> None:
    with pytest.raises(BadRequest):
        resolve(reference, CATALOG)


@pytest.mark.parametrize("config", ["", "[", "\xff", "[" * 100_000])
def test_a_folder_with_a_broken_config_is_corrupt(tiny_bert: Path, config: str) -> None:
    (tiny_bert / "config.json").write_bytes(config.encode("latin-1"))
    with pytest.raises(CorruptModel, match=r"config\.json"):
        resolve(str(tiny_bert), CATALOG)


@pytest.mark.parametrize("graph", ["model.onnx", "decoder_model_merged.onnx", "onnx/model_quantized.onnx"])
def test_a_decoder_that_optimum_exported_is_refused_by_name_with_what_to_pull_instead(
    tmp_path: Path, graph: str
) -> None:
    folder = tmp_path / "smol-onnx"
    (folder / graph).parent.mkdir(parents=True)
    (folder / graph).write_bytes(b"a graph")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Unsupported, match="smol-onnx holds a language model as optimum exports it") as refusal:
        resolve(str(folder), CATALOG)
    assert all(way in str(refusal.value) for way in ("hf:org/name", "safetensors", "GGUF", "model builder"))


@pytest.mark.parametrize("graph", ["model.onnx", "onnx/model.onnx"])
def test_graphs_beside_the_weights_that_they_were_made_of_do_not_matter(tmp_path: Path, graph: str) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / graph).write_bytes(b"a graph")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    assert resolve(str(tmp_path), CATALOG).kind == "llm"
