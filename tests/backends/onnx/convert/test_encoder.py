"""The encoder graph against a numpy BERT on the real weights, and the folders that it must refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from backends.errors import CorruptModel, Unsupported
from backends.onnx.config import MODEL_FILE, TOKENIZER_FILE, EncoderConfig, read_model_config
from backends.onnx.convert import convert_encoder
from backends.onnx.convert.folder import ModelFolder
from backends.onnx.convert.safetensors import FolderWeights
from tests.backends.onnx.convert.reference import bert_embedding

TEXTS = (
    "A",
    "The refund window is 30 days.",
    "LanceDB stores vectors; ONNX Runtime computes them. Ünïcödé, 日本語, and emoji 👋 too!",
    "word " * 300,
)


class Encoder:
    def __init__(self, directory: Path) -> None:
        config = read_model_config(directory)
        assert isinstance(config, EncoderConfig)
        self.config = config
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self.session = onnxruntime.InferenceSession(directory / MODEL_FILE, options, ["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(directory / TOKENIZER_FILE))

    def tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text).ids
        return [*ids[: self.config.max_tokens - 1], ids[-1]] if len(ids) > self.config.max_tokens else ids

    def embed(self, rows: list[list[int]]) -> NDArray[np.float32]:
        longest = max(map(len, rows))
        ids, mask = (np.zeros((len(rows), longest), np.int32) for _ in range(2))
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        (out,) = self.session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})
        return np.asarray(out)


@pytest.fixture(scope="module")
def fp32(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    target = tmp_path_factory.mktemp("encoder") / "fp32"
    convert_encoder(minilm_folder, target, precision="fp32")
    return Encoder(target)


def test_fp32_embeddings_equal_those_of_a_numpy_bert(fp32: Encoder, minilm_folder: Path) -> None:
    weights = FolderWeights(ModelFolder(minilm_folder))
    tensors = {name: weights.weight(name) for name in weights.shapes if not name.endswith("position_ids")}
    for text in TEXTS:
        ids = fp32.tokens(text)
        np.testing.assert_allclose(fp32.embed([ids])[0], bert_embedding(minilm_folder, tensors, ids), atol=1e-5)


def test_int8_embeddings_point_the_same_way(fp32: Encoder, minilm_dir: Path) -> None:
    int8 = Encoder(minilm_dir)
    rows = [fp32.tokens(text) for text in TEXTS]
    assert (fp32.embed(rows) * int8.embed(rows)).sum(-1).min() > 0.999


def test_padding_changes_nothing_and_vectors_have_length_one(fp32: Encoder) -> None:
    rows = [fp32.tokens(text) for text in TEXTS]
    together = fp32.embed(rows)
    alone = np.concatenate([fp32.embed([row]) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=-1), 1, atol=1e-6)


def test_the_configuration_is_the_folders(fp32: Encoder) -> None:
    config = fp32.config
    assert (config.embedding_dimension, config.max_tokens, config.pooling) == (384, 256, "mean")
    # The folder's tokenizer.json pads to, and cuts at, 128 tokens; a server decides that by itself.
    assert len(fp32.tokenizer.encode("word " * 300).ids) == 302
    assert len(fp32.tokenizer.encode("word").ids) == 3


def copied(folder: Path, tmp_path: Path) -> Path:
    """The folder with its own small files; the weights are linked."""
    target = tmp_path / "folder"
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))
    (target / "model.safetensors").hardlink_to(folder / "model.safetensors")
    return target


def test_first_token_pooling_takes_the_first_token(minilm_folder: Path, tmp_path: Path, fp32: Encoder) -> None:
    folder = copied(minilm_folder, tmp_path)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    convert_encoder(folder, tmp_path / "out", precision="fp32")
    encoder = Encoder(tmp_path / "out")
    assert encoder.config.pooling == "cls"
    first, mean = encoder.embed([fp32.tokens(TEXTS[1])]), fp32.embed([fp32.tokens(TEXTS[1])])
    np.testing.assert_allclose(np.linalg.norm(first), 1, atol=1e-6)
    assert float((first * mean).sum()) < 0.95


@pytest.mark.parametrize(
    ("file", "change", "error", "reason"),
    [
        ("config.json", {"model_type": "roberta"}, Unsupported, "roberta"),
        ("config.json", {"hidden_act": "relu"}, Unsupported, "relu"),
        ("config.json", {"position_embedding_type": "relative_key"}, Unsupported, "relative_key"),
        ("config.json", {"hidden_size": 768}, CorruptModel, "the configuration wants"),
        ("config.json", {"num_hidden_layers": 10**9}, CorruptModel, "at most 512"),
        ("config.json", {"vocab_size": 10}, CorruptModel, "the configuration wants"),
        ("config.json", {"num_attention_heads": 7}, CorruptModel, "no multiple of 7"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, Unsupported, "pooling_mode_max_tokens"),
    ],
)
def test_other_encoders_and_contradictions_are_refused(
    minilm_folder: Path, tmp_path: Path, file: str, change: dict[str, Any], error: type[Exception], reason: str
) -> None:
    folder = copied(minilm_folder, tmp_path)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **change}))
    with pytest.raises(error, match=reason):
        convert_encoder(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_module_that_the_graph_would_leave_out_is_refused(minilm_folder: Path, tmp_path: Path) -> None:
    folder = copied(minilm_folder, tmp_path)
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(Unsupported, match="'Dense'"):
        convert_encoder(folder, tmp_path / "out")
