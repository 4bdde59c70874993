"""A tiny random model of every decoder architecture, as a Hugging Face folder and as the GGUF file of the same weights.

The weights follow from the configuration alone, so that an environment with transformers and one without have the same
models: `golden/make_logits.py` writes down in the first what `test_architectures.py` compares with in the second.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.backends.onnx.convert import tiny
from tests.backends.onnx.convert.reference import GGUF_NAMES, HUGGING_FACE_NAMES

Array = NDArray[Any]

_SIZES: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96, "vocab_size": 300, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 256, "eos_token_id": 257,
    "pad_token_id": 258,
}  # fmt: skip

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**_SIZES, "model_type": "llama"},
    "mistral": {**_SIZES, "model_type": "mistral", "sliding_window": 13},
    "mistral without a window": {**_SIZES, "model_type": "mistral", "sliding_window": None, "head_dim": 32},
    "qwen2": {**_SIZES, "model_type": "qwen2", "tie_word_embeddings": True, "rope_theta": 1e6, "sliding_window": 13},
    "qwen2 with a window in its later layers": {
        **_SIZES, "model_type": "qwen2", "use_sliding_window": True, "sliding_window": 13, "max_window_layers": 1,
    },
    "qwen3": {**_SIZES, "model_type": "qwen3", "head_dim": 32, "rms_norm_eps": 1e-6},
    "phi3": {**_SIZES, "model_type": "phi3", "sliding_window": 13},
    "phi3 with LongRoPE": {
        **_SIZES, "model_type": "phi3", "num_key_value_heads": 4, "original_max_position_embeddings": 64,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0, 1.02, 1.1, 1.3, 1.6, 2.0, 2.4, 3.0],
            "long_factor": [1.0, 1.5, 2.0, 4.0, 8.0, 12.0, 20.0, 30.0],
        },
    },
    "phi3 that rotates a part of each head": {
        **_SIZES, "model_type": "phi3", "num_attention_heads": 2, "num_key_value_heads": 1,
        "partial_rotary_factor": 0.5,
    },
}  # fmt: skip
WITHOUT_GGUF = frozenset({"qwen2 with a window in its later layers"})
"""GGUF has no word for which layers have the window."""

PROMPT_TEXT = "The refund window is 30 days, a year at most."
PROMPT: list[int] = tiny.tokenizer().encode(PROMPT_TEXT).ids
"""Longer than the windows; with the answer it stays within the shortest context."""
ANSWER_TOKENS = 16
GOLDEN_ROWS = (0, 20, 41)
"""Tokens of the prompt whose logits are written down."""

_FUSED = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}


def weights(config: dict[str, Any]) -> dict[str, Array]:
    """Random float32 weights under Hugging Face's names."""
    tensors = tiny.weights(config, HUGGING_FACE_NAMES, seed=zlib.crc32(repr(sorted(config.items())).encode()))
    draw = np.random.default_rng(1)
    for layer in range(config["num_hidden_layers"]):
        name = {ours: theirs.format(layer) for ours, theirs in HUGGING_FACE_NAMES.items()}
        if config["model_type"] == "qwen2":
            for part in "qkv":
                bias = draw.normal(0, 0.5, len(tensors[name[part]]))
                tensors[name[part].replace(".weight", ".bias")] = bias.astype(np.float32)
        if config["model_type"] == "qwen3":
            for part in "qk":
                norm = draw.normal(1, 0.3, config["head_dim"]).astype(np.float32)
                tensors[f"model.layers.{layer}.self_attn.{part}_norm.weight"] = norm
        if config["model_type"] == "phi3":
            qkv = np.concatenate([tensors.pop(name[part]) for part in _FUSED["qkv"]])
            gate_up = np.concatenate([tensors.pop(name[part]) for part in _FUSED["gate_up"]])
            tensors[f"model.layers.{layer}.self_attn.qkv_proj.weight"] = qkv
            tensors[f"model.layers.{layer}.mlp.gate_up_proj.weight"] = gate_up
    return tensors


def write_folder(folder: Path, config: dict[str, Any]) -> Path:
    """The model as a Hugging Face folder."""
    architecture = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "phi3": "Phi3"}
    full = {**config, "architectures": [f"{architecture[config['model_type']]}ForCausalLM"], "torch_dtype": "float32"}
    return tiny.write_folder(folder, full, weights(config))


def write_gguf(
    path: Path,
    config: dict[str, Any],
    quantisation: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    extra: dict[str, Any] | None = None,
) -> Path:
    """The model as llama.cpp's converter would write it."""
    kind = config["model_type"]
    metadata: dict[str, Any] = {"attention.sliding_window": config.get("sliding_window") or 0}
    tensors: dict[str, Array] = {}
    if kind == "qwen2":
        del metadata["attention.sliding_window"]  # not in use
    if "head_dim" in config:
        metadata |= {"attention.key_length": config["head_dim"], "attention.value_length": config["head_dim"]}
    if kind == "phi3":
        size = config["hidden_size"] // config["num_attention_heads"]
        metadata["rope.dimension_count"] = int(size * config.get("partial_rotary_factor", 1.0))
    if rule := config.get("rope_scaling"):
        original = config["original_max_position_embeddings"]
        stretch = config["max_position_embeddings"] / original
        metadata["rope.scaling.original_context_length"] = original
        metadata["rope.scaling.attn_factor"] = float(np.sqrt(1 + np.log(stretch) / np.log(original)))
        for length in ("short", "long"):
            tensors[f"rope_factors_{length}.weight"] = np.array(rule[f"{length}_factor"], np.float32)
    for name, value in weights(config).items():
        ours, renamed = _gguf_name(name)
        if kind in ("llama", "mistral") and ours in ("q", "k"):  # as llama.cpp's converter orders the rows of each head
            heads = config["num_attention_heads" if ours == "q" else "num_key_value_heads"]
            value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        tensors[renamed] = value
    architecture = "llama" if kind == "mistral" else kind
    metadata = {f"{architecture}.{key}": value for key, value in metadata.items()} | (extra or {})
    return tiny.write_gguf(path, config, tensors, quantisation=quantisation, extra=metadata, architecture=architecture)


def _gguf_name(name: str) -> tuple[str, str]:
    """What the tensor is, and its name in a GGUF file."""
    stem, _, suffix = name.rpartition(".")
    parts = stem.split(".")
    if len(parts) < 3:
        ours = next(ours for ours, theirs in HUGGING_FACE_NAMES.items() if theirs == name)
        return ours, GGUF_NAMES[ours]
    layer, module = parts[2], parts[-1]
    others = {"qkv_proj": "attn_qkv", "gate_up_proj": "ffn_up", "q_norm": "attn_q_norm", "k_norm": "attn_k_norm"}
    if module in others:
        return module, f"blk.{layer}.{others[module]}.{suffix}"
    ours = next(o for o, theirs in HUGGING_FACE_NAMES.items() if theirs.format(layer) == f"{stem}.weight")
    return ours, GGUF_NAMES[ours].format(layer).replace(".weight", f".{suffix}")
