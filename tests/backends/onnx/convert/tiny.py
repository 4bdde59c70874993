"""Tiny random Llama models in both file formats, as their authors' tools write them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.backends.onnx.convert.reference import GGUF_NAMES, HUGGING_FACE_NAMES, Llama

Array = NDArray[Any]

CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 300, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
    "bos_token_id": 256, "eos_token_id": 257,
}  # fmt: skip
SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")


def vocabulary() -> dict[str, int]:
    """The 256 bytes, three special tokens and one word."""
    return {token: i for i, token in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *SPECIAL, "Ġa"])}


def tokenizer() -> Tokenizer:
    """A byte-level tokenizer with one merge."""
    made = Tokenizer(models.BPE(vocab=vocabulary(), merges=[("Ġ", "a")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return made


def weights(config: dict[str, Any], names: dict[str, str], seed: int = 0) -> dict[str, Array]:
    """Random float32 weights under the names of a format."""
    draw = np.random.default_rng(seed)
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    size = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, keys = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    shapes = {
        "norm1": (hidden,), "q": (queries, hidden), "k": (keys, hidden), "v": (keys, hidden), "o": (hidden, queries),
        "norm2": (hidden,), "gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner),
    }  # fmt: skip
    made: dict[str, Array] = {names["embedding"]: draw.normal(size=(vocab, hidden)), names["norm"]: np.ones(hidden)}
    if not config["tie_word_embeddings"]:
        made[names["head"]] = draw.normal(size=(vocab, hidden))
    for layer in range(config["num_hidden_layers"]):
        for name, shape in shapes.items():
            made[names[name].format(layer)] = draw.normal(1 if "norm" in name else 0, 0.15, shape)
    return {name: value.astype(np.float32) for name, value in made.items()}


def frequencies(config: dict[str, Any]) -> Array:
    """Unscaled rotary frequencies."""
    size = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    return np.asarray(config["rope_theta"] ** -(np.arange(0, size, 2) / size))


def reference(config: dict[str, Any], tensors: dict[str, Array], scaled: Array | None = None) -> Llama:
    """The numpy model of `tensors`, in float64; `scaled` are rotary frequencies other than the plain ones."""
    gguf_order = GGUF_NAMES["embedding"] in tensors
    return Llama(
        weights={name: value.astype(np.float64) for name, value in tensors.items()},
        names=GGUF_NAMES if gguf_order else HUGGING_FACE_NAMES,
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        epsilon=config["rms_norm_eps"],
        frequencies=frequencies(config) if scaled is None else scaled,
        adjacent=gguf_order,
    )


def write_safetensors(path: Path, tensors: dict[str, Array], dtype: str = "F32") -> None:
    """The safetensors format, by its specification; numbers of type F32, F16 or BF16."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, value in tensors.items():
        if dtype == "BF16":
            raw = (value.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        else:
            raw = value.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def write_folder(
    folder: Path, config: dict[str, Any], tensors: dict[str, Array], *, shards: int = 1, dtype: str = "F32"
) -> Path:
    """A Hugging Face folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer().save(str(folder / "tokenizer.json"))
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, dtype)
        return folder
    names = list(tensors)
    placed = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
    for file in set(placed.values()):
        write_safetensors(folder / file, {name: tensors[name] for name in names if placed[name] == file}, dtype)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return folder


def write_gguf(
    path: Path,
    config: dict[str, Any],
    tensors: dict[str, Array],
    *,
    quantisation: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    extra: dict[str, Any] | None = None,
    architecture: str = "llama",
) -> Path:
    """A GGUF file by the gguf package's writer. extra: more metadata, or None under a key to leave it out."""
    writer = gguf.GGUFWriter(path, architecture)
    sizes: dict[str, Any] = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config["rope_theta"],
    }
    metadata: dict[str, Any] = {
        **{f"{architecture}.{key}": value for key, value in sizes.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
        **(extra or {}),
    }
    for key, value in metadata.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            writer.add_array(key, value)
    writer.add_token_list(list(vocabulary()))
    writer.add_token_types([1] * 256 + [3] * len(SPECIAL) + [1])
    writer.add_token_merges(["Ġ a"])
    for name, value in tensors.items():
        if value.ndim == 1:
            writer.add_tensor(name, value.astype(np.float32))
        else:
            writer.add_tensor(name, gguf.quantize(value, quantisation), raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
