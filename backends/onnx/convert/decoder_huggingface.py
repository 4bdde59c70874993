"""A Llama model from a Hugging Face folder: `config.json` and safetensors."""

from __future__ import annotations

import math
from typing import Any

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert.decoder import DecoderShape, check_weights
from backends.onnx.convert.folder import ModelFolder
from backends.onnx.convert.quantise import Float32
from backends.onnx.convert.rope import Llama3Scaling, Rope
from backends.onnx.convert.safetensors import FolderWeights

CONFIG = "config.json"
DEFAULT_ROPE_BASE = 10_000.0

_GLOBAL = {"embedding": "model.embed_tokens", "head": "lm_head", "norm": "model.norm"}
_LAYER = {
    "attention_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


class HuggingFaceDecoder:
    """A `DecoderSource` over a folder.

    Raises (constructor):
        Unsupported: another architecture, or a variant of this one. CorruptModel: configuration and tensors disagree.
    """

    def __init__(self, folder: ModelFolder) -> None:
        config = folder.json(CONFIG)
        self._weights = FolderWeights(folder)
        found = self._weights.shapes
        self.shape = _shape(config, found)
        self.shape.check(CONFIG)
        expected = {_tensor(name): shape for name, shape in self.shape.weights().items()}
        # Old checkpoints carry the rotary frequencies, which follow from the configuration; tied ones may have a head.
        ignored = {name for name in found if name.endswith("rotary_emb.inv_freq")}
        if self.shape.tied:
            ignored.add(_tensor("head"))
        check_weights(CONFIG, expected, found, frozenset(ignored))

    def matrix(self, name: str) -> Float32:
        return self._weights.weight(_tensor(name))

    def vector(self, name: str) -> Float32:
        return self._weights.weight(_tensor(name))


def _tensor(name: str) -> str:
    """Hugging Face's name of our weight `name`."""
    layer, dot, kind = name.rpartition(".")
    return f"model.layers.{layer}.{_LAYER[kind]}.weight" if dot else f"{_GLOBAL[name]}.weight"


def _shape(config: dict[str, Any], found: dict[str, tuple[int, ...]]) -> DecoderShape:
    if config.get("model_type") != "llama":
        raise Unsupported(f"model_type {config.get('model_type')!r}; folders of 'llama' can be converted")
    if config.get("hidden_act", "silu") != "silu":
        raise Unsupported(f"hidden_act {config['hidden_act']!r} in a Llama model; it must be 'silu'")
    for bias in ("attention_bias", "mlp_bias"):
        if config.get(bias):
            raise Unsupported(f"{bias} in a Llama model")
    if config.get("quantization_config"):
        raise Unsupported("an already quantised checkpoint (quantization_config); give the original or a GGUF file")
    heads, hidden = _integer(config, "num_attention_heads"), _integer(config, "hidden_size")
    if heads < 1:
        raise CorruptModel(CONFIG, f"num_attention_heads is {heads}")
    embedding = found.get("model.embed_tokens.weight", ())
    return DecoderShape(
        layers=_integer(config, "num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=_integer(config, "num_key_value_heads", heads),
        head_dim=_integer(config, "head_dim", hidden // heads),
        inner=_integer(config, "intermediate_size"),
        vocab=embedding[0] if embedding else _integer(config, "vocab_size"),
        context_length=_integer(config, "max_position_embeddings", 2048),
        epsilon=_number(config, "rms_norm_eps", 1e-6),
        rope=_rope(config),
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def _rope(config: dict[str, Any]) -> Rope:
    # transformers 5 moved `rope_theta` and `rope_scaling` into `rope_parameters`.
    rule = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rule, dict):
        raise CorruptModel(CONFIG, "rope_scaling must be an object")
    base = _number(rule, "rope_theta", _number(config, "rope_theta", DEFAULT_ROPE_BASE))
    kind = rule.get("rope_type", rule.get("type", "default"))
    if float(rule.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1) != 1:
        raise Unsupported("partial_rotary_factor in a Llama model")
    if kind == "default":
        return Rope(base)
    if kind == "linear":
        return Rope(base, linear=_number(rule, "factor"))
    if kind == "llama3":
        scaling = Llama3Scaling(
            factor=_number(rule, "factor"),
            low_frequency_factor=_number(rule, "low_freq_factor"),
            high_frequency_factor=_number(rule, "high_freq_factor"),
            original_context=_integer(rule, "original_max_position_embeddings"),
        )
        if scaling.factor < 1 or scaling.high_frequency_factor <= scaling.low_frequency_factor:
            raise CorruptModel(CONFIG, f"impossible llama3 rotary scaling {rule}")
        return Rope(base, llama3=scaling)
    raise Unsupported(f"rotary scaling {kind!r}; 'linear' and 'llama3' can be converted")


def _integer(config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int):
        raise CorruptModel(CONFIG, f"{key} must be a whole number, not {value!r}")
    return value


def _number(config: dict[str, Any], key: str, default: float | None = None) -> float:
    value = config.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CorruptModel(CONFIG, f"{key} must be a number, not {value!r}")
    return float(value)
