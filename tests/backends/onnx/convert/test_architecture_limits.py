"""What of the decoder architectures is refused, and where a model's context ends."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.errors import CorruptModel, Unsupported
from backends.onnx.config import DecoderConfig, read_model_config
from backends.onnx.convert import convert_decoder
from backends.onnx.convert.decoder_huggingface import HuggingFaceDecoder
from backends.onnx.convert.folder import ModelFolder
from tests.backends.onnx.convert import architectures, tiny
from tests.backends.onnx.convert.architectures import CONFIGS

LONGROPE = CONFIGS["phi3 with LongRoPE"]
PARTIAL = CONFIGS["phi3 that rotates a part of each head"]


def changed_rule(**change: Any) -> dict[str, Any]:
    return {**LONGROPE, "rope_scaling": {**LONGROPE["rope_scaling"], **change}}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({**CONFIGS["qwen3"], "model_type": "qwen3_moe"}, "qwen3_moe"),
        ({**CONFIGS["mistral"], "model_type": "mixtral"}, "mixtral"),
        ({**CONFIGS["phi3"], "model_type": "phi3small"}, "phi3small"),
        ({**CONFIGS["qwen3"], "attention_bias": True}, "attention_bias in a qwen3 model"),
        ({**CONFIGS["qwen2"], "partial_rotary_factor": 0.5}, "partial_rotary_factor in a qwen2 model"),
        ({**PARTIAL, "partial_rotary_factor": 0.75}, "rotated part of each head: 24"),
        (
            {
                **CONFIGS["qwen2 with a window in its later layers"],
                "layer_types": ["full_attention", "linear_attention"],
            },
            "linear_attention",
        ),
        ({**CONFIGS["qwen3"], "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({**CONFIGS["mistral"], "rope_scaling": {"rope_type": "su", "factor": 4.0}}, "su"),
    ],
)
def test_a_variant_that_is_not_understood_is_refused_by_name(
    tmp_path: Path, config: dict[str, Any], named: str
) -> None:
    folder = tiny.write_folder(tmp_path / "source", config, {})
    with pytest.raises(Unsupported, match=named):
        convert_decoder(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (changed_rule(short_factor=None), "short_factor must be a list of positive numbers"),
        (changed_rule(short_factor=[1.0] * 7), "short_factor has 7 numbers"),
        (changed_rule(short_factor=[1.0] * 7 + [0.0]), "short_factor must be a list of positive numbers"),
        (changed_rule(original_max_position_embeddings=1), "original_max_position_embeddings is 1"),
        (changed_rule(attention_factor=-1.0), "attention_factor is -1"),
        ({**PARTIAL, "partial_rotary_factor": 1.5}, "partial_rotary_factor is 1.5"),
        ({**CONFIGS["mistral"], "sliding_window": 0}, "a sliding window of 0 tokens"),
        (
            {**CONFIGS["qwen2 with a window in its later layers"], "layer_types": ["full_attention"]},
            "layer_types must be a list of 2 names",
        ),
    ],
)
def test_a_configuration_that_contradicts_itself_is_corrupt(
    tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    folder = architectures.write_folder(
        tmp_path / "source", {**config, "head_dim": 16 if config is not PARTIAL else 32}
    )
    with pytest.raises(CorruptModel, match=reason):
        convert_decoder(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("qwen2", "model.layers.1.self_attn.k_proj.bias"),
        ("qwen3", "model.layers.0.self_attn.q_norm.weight"),
        ("phi3", "model.layers.1.self_attn.qkv_proj.weight"),
    ],
)
def test_a_weight_that_the_architecture_demands_and_the_files_lack_is_named(
    tmp_path: Path, name: str, missing: str
) -> None:
    tensors = architectures.weights(CONFIGS[name])
    del tensors[missing]
    folder = tiny.write_folder(tmp_path / "source", CONFIGS[name], tensors)
    with pytest.raises(CorruptModel, match=f"{missing} is missing"):
        convert_decoder(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "extra", "error", "reason"),
    [
        ("qwen2", {"qwen2.attention.sliding_window": 13}, Unsupported, "sliding window of the qwen2 model"),
        ("qwen3", {"qwen3.attention.value_length": 16}, Unsupported, "values of another size"),
        ("qwen3", {"qwen3.rope.dimension_count": 16}, Unsupported, "a part of each head in the qwen3 model"),
        ("phi3", {"phi3.expert_count": 2}, Unsupported, "mixture of experts"),
        ("phi3", {"phi3.rope.dimension_count": 8}, Unsupported, "rotated part of each head: 8"),
        ("phi3", {"phi3.rope.dimension_count": 32}, CorruptModel, "32 of 16 numbers of a head"),
        ("phi3 with LongRoPE", {"phi3.rope.scaling.type": "yarn"}, Unsupported, "'yarn' beside LongRoPE"),
        ("phi3 with LongRoPE", {"phi3.rope.scaling.attn_factor": 0.0}, CorruptModel, "attn_factor is 0"),
        ("phi3 with LongRoPE", {"phi3.rope.scaling.original_context_length": 1}, CorruptModel, "context_length is 1"),
    ],
)
def test_gguf_files_are_refused_by_name_too(
    tmp_path: Path, name: str, extra: dict[str, Any], error: type[Exception], reason: str
) -> None:
    path = architectures.write_gguf(tmp_path / "m.gguf", CONFIGS[name], extra=extra)
    with pytest.raises(error, match=reason):
        convert_decoder(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_the_context_of_longrope_ends_where_its_short_factors_do(tmp_path: Path, form: str) -> None:
    write: Any = architectures.write_folder if form == "folder" else architectures.write_gguf
    convert_decoder(write(tmp_path / f"m.{form}", LONGROPE), tmp_path / "out")
    config = read_model_config(tmp_path / "out")
    assert isinstance(config, DecoderConfig)
    assert config.context_length == LONGROPE["original_max_position_embeddings"] < LONGROPE["max_position_embeddings"]


def test_a_key_that_is_left_out_means_what_the_family_means_by_it(tmp_path: Path) -> None:
    config = {**CONFIGS["mistral"], "num_key_value_heads": 4}
    folder = tiny.write_folder(tmp_path / "source", config, architectures.weights(config))
    left_out = {key: value for key, value in config.items() if key not in ("sliding_window", "max_position_embeddings")}
    (folder / "config.json").write_text(json.dumps(left_out))
    shape = HuggingFaceDecoder(ModelFolder(folder)).shape
    assert (shape.windows, shape.context_length) == ((4096, 4096), 131_072)


@pytest.mark.parametrize("name", CONFIGS)
def test_whatever_bytes_of_the_configuration_change_it_is_read_or_refused(tmp_path: Path, name: str) -> None:
    folder = architectures.write_folder(tmp_path / "source", CONFIGS[name])
    whole = (folder / "config.json").read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(200):
        changed = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            changed[draw.randrange(len(whole))] = draw.choice(b'"09-[{e.,]}')
        (folder / "config.json").write_bytes(changed)
        try:
            shape = HuggingFaceDecoder(ModelFolder(folder)).shape
            assert np.isfinite(shape.rope.tables(shape.rotary_dim, 4)).all()
        except (CorruptModel, Unsupported):
            refused += 1
    assert 100 < refused <= 200
