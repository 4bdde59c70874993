"""A decoder from a Hugging Face folder: `config.json` and safetensors.

Keys, defaults and names of tensors: the configuration and modelling modules of transformers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert.decoder import ARCHITECTURES, MAX_CONTEXT, MAX_LAYERS, DecoderShape, check_weights
from backends.onnx.convert.folder import ModelFolder
from backends.onnx.convert.quantise import Float32
from backends.onnx.convert.rope import Llama3Scaling, Rope, longrope_magnitude
from backends.onnx.convert.safetensors import FolderWeights

CONFIG = "config.json"
DEFAULT_ROPE_BASE = 10_000.0

_GLOBAL = {"embedding": "model.embed_tokens", "head": "lm_head", "norm": "model.norm"}
_LAYER = {
    "attention_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "qkv": "self_attn.qkv_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "o": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "gate_up": "mlp.gate_up_proj",
    "down": "mlp.down_proj",
}

_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131_072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32_768, "num_key_value_heads": 32},
    "qwen3": {"max_position_embeddings": 32_768, "num_key_value_heads": 32, "head_dim": 128},
    "phi3": {"max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
}
"""What a configuration means by leaving a key out, where families differ."""


class HuggingFaceDecoder:
    """A `DecoderSource` over a folder.

    Raises (constructor):
        Unsupported: another architecture, or a variant of one. CorruptModel: configuration and tensors disagree.
    """

    def __init__(self, folder: ModelFolder) -> None:
        config = folder.json(CONFIG)
        self._weights = FolderWeights(folder)
        found = self._weights.shapes
        self.shape = shape = _shape(config, found)
        shape.check(CONFIG)
        expected = {tensor_name(name): size for name, size in shape.weights().items()}
        # Old checkpoints carry the rotary frequencies, which follow from the configuration; tied ones may have a head.
        ignored = {name for name in found if name.endswith("rotary_emb.inv_freq")}
        if shape.tied:
            ignored.add(tensor_name("head"))
        check_weights(CONFIG, shape.architecture, expected, found, frozenset(ignored))

    def matrix(self, name: str) -> Float32:
        stored, rows = self.shape.place(name)
        return self._weights.weight(tensor_name(stored))[rows]

    def vector(self, name: str) -> Float32:
        return self._weights.weight(tensor_name(name))


def tensor_name(name: str) -> str:
    """Hugging Face's name of our weight `name`."""
    layer, dot, kind = name.rpartition(".")
    if not dot:
        return f"{_GLOBAL[name]}.weight"
    if kind.endswith("_bias"):
        return f"model.layers.{layer}.{_LAYER[kind.removesuffix('_bias')]}.bias"
    return f"model.layers.{layer}.{_LAYER[kind]}.weight"


def _shape(config: dict[str, Any], found: dict[str, tuple[int, ...]]) -> DecoderShape:
    architecture = config.get("model_type")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise Unsupported(f"model_type {architecture!r}; folders of {known} can be converted")
    config = _DEFAULTS[architecture] | config
    if config.get("hidden_act", "silu") != "silu":
        raise Unsupported(f"hidden_act {config['hidden_act']!r} in a {architecture} model; it must be 'silu'")
    for bias in ("attention_bias", "mlp_bias"):
        if config.get(bias):
            raise Unsupported(f"{bias} in a {architecture} model")
    if config.get("quantization_config"):
        raise Unsupported("an already quantised checkpoint (quantization_config); give the original or a GGUF file")
    heads, hidden = _integer(config, "num_attention_heads"), _integer(config, "hidden_size")
    if heads < 1:
        raise CorruptModel(CONFIG, f"num_attention_heads is {heads}")
    head_dim = _integer(config, "head_dim", hidden // heads)
    embedding = found.get("model.embed_tokens.weight", ())
    layers = _integer(config, "num_hidden_layers")
    rule = _rope_rule(config)
    rope, context_length = _rope(config, rule)
    if rope.divisors is not None and len(rope.divisors) != int(head_dim * _rotated_share(config, rule)) // 2:
        raise CorruptModel(CONFIG, f"short_factor has {len(rope.divisors)} numbers, not one for each wave of a head")
    return DecoderShape(
        architecture=architecture,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_integer(config, "num_key_value_heads", heads),
        head_dim=head_dim,
        inner=_integer(config, "intermediate_size"),
        vocab=embedding[0] if embedding else _integer(config, "vocab_size"),
        context_length=context_length,
        epsilon=_number(config, "rms_norm_eps", 1e-6),
        rope=rope,
        rotary_dim=int(head_dim * _rotated_share(config, rule)),
        windows=_windows(config, architecture, min(max(layers, 0), MAX_LAYERS)),
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def _windows(config: dict[str, Any], architecture: str, layers: int) -> tuple[int | None, ...]:
    """The sliding window of each layer."""
    if architecture == "llama" or config.get("sliding_window") is None:
        return (None,) * layers
    window = _integer(config, "sliding_window")
    if architecture not in ("qwen2", "qwen3"):
        return (window,) * layers
    if not config.get("use_sliding_window"):
        return (None,) * layers
    kinds = config.get("layer_types")
    if kinds is None:
        first = _integer(config, "max_window_layers", 28)
        return tuple(window if i >= first else None for i in range(layers))
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise CorruptModel(CONFIG, f"layer_types must be a list of {layers} names")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise Unsupported(f"layer type {kind!r}; full_attention and sliding_attention can be converted")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _rope_rule(config: dict[str, Any]) -> dict[str, Any]:
    # transformers 5 moved `rope_theta` and `rope_scaling` into `rope_parameters`.
    rule = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rule, dict):
        raise CorruptModel(CONFIG, "rope_scaling must be an object")
    return rule


def _rotated_share(config: dict[str, Any], rule: dict[str, Any]) -> float:
    """The share of each head that is rotated, 0 to 1."""
    share = _number(rule, "partial_rotary_factor", _number(config, "partial_rotary_factor", 1.0))
    if not 0 < share <= 1:
        raise CorruptModel(CONFIG, f"partial_rotary_factor is {share}")
    if share != 1 and not ARCHITECTURES[config["model_type"]].partial_rotary:
        raise Unsupported(f"partial_rotary_factor in a {config['model_type']} model")
    return share


def _rope(config: dict[str, Any], rule: dict[str, Any]) -> tuple[Rope, int]:
    """The rotation, and the context in which it holds."""
    base = _number(rule, "rope_theta", _number(config, "rope_theta", DEFAULT_ROPE_BASE))
    kind = rule.get("rope_type", rule.get("type", "default"))
    context = _integer(config, "max_position_embeddings")
    if kind == "default":
        return Rope(base), context
    if kind == "linear":
        return Rope(base, linear=_number(rule, "factor")), context
    if kind == "llama3":
        scaling = Llama3Scaling(
            factor=_number(rule, "factor"),
            low_frequency_factor=_number(rule, "low_freq_factor"),
            high_frequency_factor=_number(rule, "high_freq_factor"),
            original_context=_integer(rule, "original_max_position_embeddings"),
        )
        if scaling.factor < 1 or scaling.high_frequency_factor <= scaling.low_frequency_factor:
            raise CorruptModel(CONFIG, f"impossible llama3 rotary scaling {rule}")
        return Rope(base, llama3=scaling), context
    # Early Phi-3 files say "su", and some "yarn", where the factors are those of LongRoPE.
    if kind == "longrope" or (config["model_type"] == "phi3" and kind in ("su", "yarn")):
        return _longrope(config, rule, base, context)
    raise Unsupported(f"rotary scaling {kind!r}; 'linear', 'llama3' and 'longrope' can be converted")


def _longrope(config: dict[str, Any], rule: dict[str, Any], base: float, context: int) -> tuple[Rope, int]:
    """LongRoPE with its short factors, which hold up to the original context.

    Beyond it the model wants other factors for all tokens, those in the KV cache included; a cache that sequences and
    their continuations share has one rotation only.
    """
    original = _integer(
        rule, "original_max_position_embeddings", config.get("original_max_position_embeddings", context)
    )
    factors = rule.get("short_factor")
    if not isinstance(factors, list) or not all(_is_positive(f) for f in factors):
        raise CorruptModel(CONFIG, "short_factor must be a list of positive numbers")
    if not 2 <= original <= MAX_CONTEXT:
        raise CorruptModel(CONFIG, f"original_max_position_embeddings is {original}")
    stretch = _number(rule, "factor", context / original)
    magnitude = _number(rule, "attention_factor", longrope_magnitude(stretch, original))
    if magnitude <= 0:
        raise CorruptModel(CONFIG, f"attention_factor is {magnitude}")
    return Rope(base, divisors=np.array(factors, np.float32), magnitude=magnitude), min(context, original)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


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
