"""`config.json` of a model directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.errors import CorruptModel
from backends.onnx.config import (
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    SamplingDefaults,
    read_model_config,
    write_model_config,
)

DECODER = DecoderConfig(
    architecture="llama",
    layers=2,
    kv_heads=2,
    head_dim=16,
    hidden=64,
    vocab=300,
    context_length=128,
    precision="int8",
    kv_dtype="float32",
    kv_bytes_per_token=512,
    eos_token_ids=(1, 2),
    sampling=SamplingDefaults(temperature=0.6),
)
ENCODER = EncoderConfig(
    architecture="bert",
    layers=6,
    hidden=384,
    vocab=30522,
    precision="fp32",
    embedding_dimension=384,
    max_tokens=256,
    pooling="mean",
)


@pytest.mark.parametrize("config", [DECODER, ENCODER])
def test_what_is_written_is_read(tmp_path: Path, config: ModelConfig) -> None:
    write_model_config(tmp_path, config)
    assert read_model_config(tmp_path) == config


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "{}",
        "[]",
        '{"kind": "decoder"}',
        '{"kind": "vision"}',
        '{"kind": "encoder", "nonsense": 1}',
        "[" * 9999,
    ],
)
def test_anything_else_is_corrupt(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, errors="surrogateescape")
    with pytest.raises(CorruptModel, match=r"config\.json"):
        read_model_config(tmp_path)
