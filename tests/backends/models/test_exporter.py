"""Encoders of other architectures, through optimum in an environment of its own.

In every run a program stands in for optimum and writes a graph in its layout; the tox env `export` makes the
environment with the very command that a refusal names, and exports for real.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from backends.errors import CorruptModel, Unsupported
from backends.models.exporter import PACKAGES, OptimumExporter
from backends.models.store import ModelStore
from backends.onnx.config import EncoderConfig, read_model_config

HIDDEN, VOCAB = 32, 300
IDS = np.array([[5, 6, 7, 8], [9, 10, 1, 1]], np.int32)
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.int32)


def sentence_encoder(folder: Path, model_type: str = "roberta", *, cls: bool = False) -> Path:
    """A sentence-transformers folder, all but its weights."""
    (folder / "1_Pooling").mkdir(parents=True)
    config = {
        "model_type": model_type, "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "vocab_size": VOCAB, "max_position_embeddings": 66, "pad_token_id": 1,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    kinds = [f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling")]
    (folder / "modules.json").write_text(json.dumps([{"type": kind} for kind in kinds]))
    pooling = {"pooling_mode_cls_token": cls, "pooling_mode_mean_tokens": not cls}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def exported_graph(table: NDArray[np.float32], *, inputs: tuple[str, ...] = ()) -> onnx.ModelProto:
    """What optimum writes for an encoder whose states are rows of `table`."""
    value = helper.make_tensor_value_info
    names = ["input_ids", "attention_mask", *inputs]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("Add", ["input_ids", "attention_mask"], ["both"]),
        *(helper.make_node("Add", ["both", name], [f"with {name}"]) for name in inputs),
        helper.make_node("Identity", ["states"], ["last_hidden_state"]),
    ]
    states = value("last_hidden_state", TensorProto.FLOAT, ["batch_size", "sequence_length", HIDDEN])
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [value(name, TensorProto.INT64, ["batch_size", "sequence_length"]) for name in names],
        [states],
        [numpy_helper.from_array(table, "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def stand_in(store: Path, graph: Path | None) -> None:
    """A program in optimum's place, that writes `graph` where it is told or fails."""
    program = store / ".export" / "bin" / "python"
    program.parent.mkdir(parents=True)
    code = "echo 'Traceback' >&2; echo 'ValueError: unknown architecture' >&2; exit 1"
    if graph is not None:
        write = f'mkdir "$last" && cp "{graph}" "$last/model.onnx" && echo "$@" > "{store}/arguments"'
        code = f"for last; do :; done\n{write}"
    program.write_text(f"#!/bin/sh\n{code}\n")
    program.chmod(0o755)


def vectors(directory: Path) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input_ids": IDS, "attention_mask": MASK})
    return np.asarray(found)


@pytest.mark.parametrize("cls", [False, True])
@pytest.mark.parametrize("inputs", [(), ("token_type_ids",)])
def test_an_exported_encoder_is_stored_with_pooling_behind_it(
    tmp_path: Path, cls: bool, inputs: tuple[str, ...]
) -> None:
    table = np.random.default_rng(0).normal(size=(VOCAB, HIDDEN)).astype(np.float32)
    onnx.save(exported_graph(table, inputs=inputs), str(tmp_path / "made.onnx"))
    store = ModelStore(tmp_path / "models")
    stand_in(store.root, tmp_path / "made.onnx")
    stored = store.pull(str(sentence_encoder(tmp_path / "source", cls=cls)), name="encoder")
    assert (stored.manifest.kind, stored.manifest.precision) == ("embedding", "fp32")
    config = read_model_config(stored.path)
    assert isinstance(config, EncoderConfig)
    assert (config.architecture, config.embedding_dimension, config.pad_token_id) == ("roberta", HIDDEN, 1)
    assert config.max_tokens == 64  # positions of RoBERTa begin behind the padding token
    states = table[IDS]
    pooled = states[:, 0] if cls else (states * MASK[..., None]).sum(1) / MASK.sum(1, keepdims=True)
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors(stored.path), expected, atol=1e-6)
    arguments = (store.root / "arguments").read_text()
    assert arguments.startswith("-m optimum.exporters.onnx --model ")
    assert "trust" not in arguments
    assert [model.name for model in store.list()] == ["encoder"]


def test_without_optimum_the_refusal_says_how_to_install_it(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    with pytest.raises(Unsupported) as refused:
        store.pull(str(sentence_encoder(tmp_path / "source", "mpnet")), name="encoder")
    assert OptimumExporter(store.root / ".export").install_command in str(refused.value)
    assert store.list() == []


def test_an_architecture_that_optimum_does_not_know_is_refused_with_its_words(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    stand_in(store.root, None)
    with pytest.raises(Unsupported, match="optimum cannot export source: ValueError: unknown architecture"):
        store.pull(str(sentence_encoder(tmp_path / "source", "strange")), name="encoder")


def test_a_graph_with_other_inputs_is_refused_by_name(tmp_path: Path) -> None:
    onnx.save(exported_graph(np.zeros((VOCAB, HIDDEN), np.float32), inputs=("pixels",)), str(tmp_path / "made.onnx"))
    store = ModelStore(tmp_path / "models")
    stand_in(store.root, tmp_path / "made.onnx")
    with pytest.raises(Unsupported, match="input 'pixels'"):
        store.pull(str(sentence_encoder(tmp_path / "source")), name="encoder")


def test_weights_that_are_not_safetensors_never_reach_optimum(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    stand_in(store.root, None)
    source = sentence_encoder(tmp_path / "source")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(CorruptModel, match="is missing"):
        store.pull(str(source), name="encoder")


@pytest.fixture(scope="module")
def optimum_environment() -> Path:
    """The environment of the refusal's command; the first run fetches torch."""
    cache = Path(os.environ.get("ONNXSTACK_TEST_CACHE") or Path.home() / ".cache" / "onnxstack-tests")
    place = cache / f"optimum-{zlib.crc32(repr(PACKAGES).encode()):08x}"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        command = OptimumExporter(place).install_command.replace("python", sys.executable, 1)
        subprocess.run(command, shell=True, check=True)
        (place / "complete").touch()
    os.utime(place)
    return place


@pytest.mark.export
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("architecture", ["Roberta", "MPNet"])
def test_vectors_of_an_export_are_those_of_transformers(
    tmp_path: Path, optimum_environment: Path, architecture: str
) -> None:
    import torch
    import transformers

    source = sentence_encoder(tmp_path / "source", architecture.lower())
    (source / "model.safetensors").unlink()
    settings: dict[str, Any] = json.loads((source / "config.json").read_text())
    settings.pop("model_type")
    torch.manual_seed(0)
    model = getattr(transformers, f"{architecture}Model")(getattr(transformers, f"{architecture}Config")(**settings))
    model.eval().save_pretrained(source)
    store = ModelStore(tmp_path / "models")
    store.root.mkdir()
    (store.root / ".export").symlink_to(optimum_environment)
    stored = store.pull(str(source), name="encoder")
    ids, mask = torch.tensor(IDS.astype(np.int64)), torch.tensor(MASK.astype(np.int64))
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state.numpy()
    pooled = (states * MASK[..., None]).sum(1) / MASK.sum(1, keepdims=True)
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors(stored.path), expected, atol=1e-5)
