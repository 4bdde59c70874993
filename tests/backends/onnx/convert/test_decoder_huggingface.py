"""Hugging Face folders: variants that must be right, variants that must be refused, files that lie."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert import convert_decoder
from backends.onnx.convert.chat_files import from_folder
from backends.onnx.convert.decoder_huggingface import HuggingFaceDecoder
from backends.onnx.convert.folder import ModelFolder
from tests.backends.onnx.convert import tiny
from tests.backends.onnx.convert.decoder import Decoder
from tests.backends.onnx.convert.reference import HUGGING_FACE_NAMES, Array

IDS = [*range(0, 250, 3)]
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip


def converted(tmp_path: Path, config: dict[str, Any], **how: Any) -> tuple[Decoder, dict[str, Array]]:
    tensors = tiny.weights(config, HUGGING_FACE_NAMES)
    convert_decoder(tiny.write_folder(tmp_path / "source", config, tensors, **how), tmp_path / "out", precision="fp32")
    return Decoder(tmp_path / "out", max_len=128), tensors


@pytest.mark.parametrize(("shards", "dtype"), [(1, "F32"), (3, "F32"), (1, "BF16"), (2, "F16")])
def test_shards_and_half_precision_are_read(tmp_path: Path, shards: int, dtype: str) -> None:
    decoder, tensors = converted(tmp_path, tiny.CONFIG, shards=shards, dtype=dtype)
    if dtype == "F16":
        tensors = {name: value.astype(np.float16) for name, value in tensors.items()}
    if dtype == "BF16":
        tensors = {name: (value.view(np.uint32) >> 16 << 16).view(np.float32) for name, value in tensors.items()}
    np.testing.assert_allclose(decoder.all_logits(IDS), tiny.reference(tiny.CONFIG, tensors).logits(IDS), atol=2e-3)


def test_a_head_size_that_does_not_follow_from_the_width_is_honoured(tmp_path: Path) -> None:
    config = {**tiny.CONFIG, "head_dim": 32}
    decoder, tensors = converted(tmp_path, config)
    assert decoder.config.head_dim == 32
    np.testing.assert_allclose(decoder.all_logits(IDS), tiny.reference(config, tensors).logits(IDS), atol=2e-3)


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_linear_rotary_scaling_divides_positions(tmp_path: Path, key: str) -> None:
    config = {**tiny.CONFIG, key: {"type": "linear", "factor": 4.0}}
    decoder, tensors = converted(tmp_path, config)
    expected = tiny.reference(config, tensors, tiny.frequencies(config) / 4).logits(IDS)
    np.testing.assert_allclose(decoder.all_logits(IDS), expected, atol=2e-3)
    assert np.abs(expected - tiny.reference(config, tensors).logits(IDS)).max() > 0.1


def test_llama3_rotary_scaling_follows_the_published_code(tmp_path: Path) -> None:
    config = {**tiny.CONFIG, "rope_scaling": LLAMA3}
    decoder, tensors = converted(tmp_path, config)
    scaled = []
    for frequency in tiny.frequencies(config):  # wave by wave, as Meta's apply_scaling does it
        wavelength = 2 * math.pi / frequency
        if wavelength < 32 / 4:
            scaled.append(frequency)
        elif wavelength > 32 / 1:
            scaled.append(frequency / 8)
        else:
            smooth = (32 / wavelength - 1) / (4 - 1)
            scaled.append((1 - smooth) * frequency / 8 + smooth * frequency)
    expected = tiny.reference(config, tensors, np.array(scaled)).logits(IDS)
    np.testing.assert_allclose(decoder.all_logits(IDS), expected, atol=2e-3)
    assert np.abs(expected - tiny.reference(config, tensors).logits(IDS)).max() > 0.1


def test_tokens_and_sampling_come_from_every_file_that_names_them(tmp_path: Path) -> None:
    tensors = tiny.weights(tiny.CONFIG, HUGGING_FACE_NAMES)
    folder = tiny.write_folder(tmp_path / "source", tiny.CONFIG, tensors)
    generation = {"eos_token_id": [257, 40], "pad_token_id": 41, "temperature": 0.6, "top_p": 0.9, "top_k": 20}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    settings = {"bos_token": {"content": "<|begin_of_text|>"}, "chat_template": [{"name": "default", "template": "x"}]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    convert_decoder(folder, tmp_path / "out", precision="fp32")
    config = Decoder(tmp_path / "out").config
    assert config.eos_token_ids == (40, 257, 258)  # 258 is <|eot_id|>, which no file names
    assert (config.bos_token_id, config.add_bos, config.pad_token_id) == (256, False, 41)
    assert (config.sampling.temperature, config.sampling.top_p, config.sampling.top_k) == (0.6, 0.9, 20)
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "x"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"head_dim": 24}, "24"),
    ],
)
def test_a_variant_that_is_not_understood_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    config = {**tiny.CONFIG, **change}
    folder = tiny.write_folder(tmp_path / "source", config, tiny.weights(config, HUGGING_FACE_NAMES))
    with pytest.raises(Unsupported, match=named):
        convert_decoder(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tensor_that_has_no_place_in_the_graph_is_refused_by_name(tmp_path: Path) -> None:
    tensors = tiny.weights(tiny.CONFIG, HUGGING_FACE_NAMES)
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.ones(64, np.float32)
    folder = tiny.write_folder(tmp_path / "source", tiny.CONFIG, tensors)
    with pytest.raises(Unsupported, match=r"q_proj\.bias"):
        convert_decoder(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_hidden_layers": 3}, "layers.2.*is missing"),
        ({"num_hidden_layers": 10**9}, "layers is 1000000000"),
        ({"hidden_size": 128}, "the configuration wants"),
        ({"num_key_value_heads": 3}, "cannot share 3"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": "4"}, "num_attention_heads must be a whole number"),
        ({"max_position_embeddings": 10**12}, "context length is 1000000000000"),
        ({"rms_norm_eps": 1e999}, "not the JSON"),
        ({"rope_scaling": [1]}, "rope_scaling must be an object"),
        ({"eos_token_id": 99999}, "99999 is not in the vocabulary"),
        ({"eos_token_id": -1}, "-1 is not in the vocabulary"),
    ],
)
def test_a_configuration_that_contradicts_the_files_is_corrupt(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    folder = tiny.write_folder(tmp_path / "source", tiny.CONFIG, tiny.weights(tiny.CONFIG, HUGGING_FACE_NAMES))
    (folder / "config.json").write_text(json.dumps({**tiny.CONFIG, **change}))
    with pytest.raises(CorruptModel, match=reason) as caught:
        convert_decoder(folder, tmp_path / "out")
    assert caught.value.file == "config.json"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "1.0"}', "\x00\x01"])
def test_a_broken_tokenizer_file_is_corrupt(tmp_path: Path, content: str) -> None:
    folder = tiny.write_folder(tmp_path / "source", tiny.CONFIG, tiny.weights(tiny.CONFIG, HUGGING_FACE_NAMES))
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(CorruptModel, match=r"tokenizer\.json"):
        convert_decoder(folder, tmp_path / "out")


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptModel, match=r"nothing\.gguf.*is missing"):
        convert_decoder(tmp_path / "nothing.gguf", tmp_path / "out")


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_numbers_that_are_not_finite_are_corrupt(tmp_path: Path, bad: float) -> None:
    tensors = tiny.weights(tiny.CONFIG, HUGGING_FACE_NAMES)
    tensors["model.norm.weight"][7] = bad
    folder = tiny.write_folder(tmp_path / "source", tiny.CONFIG, tensors)
    with pytest.raises(CorruptModel, match=r"model\.norm\.weight' holds numbers that are not finite"):
        convert_decoder(folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_whatever_bytes_of_a_file_change_the_folder_is_read_or_refused(tmp_path: Path, name: str) -> None:
    folder = tiny.write_folder(tmp_path / "source", tiny.CONFIG, tiny.weights(tiny.CONFIG, HUGGING_FACE_NAMES))
    whole = (folder / name).read_bytes()
    size = len(whole) if name.endswith(".json") else 8 + int.from_bytes(whole[:8], "little")
    draw = random.Random(0)
    refused = 0
    for _ in range(100):
        changed = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            changed[draw.randrange(size)] = draw.choice([0, 255, *b'"09-[{e', draw.randrange(256)])
        (folder / name).write_bytes(changed)
        try:
            opened = ModelFolder(folder)
            HuggingFaceDecoder(opened)
            from_folder(opened)
        except (CorruptModel, Unsupported):
            refused += 1
    assert 50 < refused <= 100
