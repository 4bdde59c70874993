"""A decoder from a GGUF file.

Names of metadata and tensors: the gguf package's `constants.py`; their meaning: llama.cpp's `convert_hf_to_gguf.py`.
"""

from __future__ import annotations

import numpy as np

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert.decoder import MAX_LAYERS, DecoderShape, check_weights
from backends.onnx.convert.gguf_file import GgufFile
from backends.onnx.convert.quantise import Float32, Weight, to_float32
from backends.onnx.convert.rope import Rope, longrope_magnitude

LLAMA3_DIVISORS = "rope_freqs.weight"
LONGROPE_SHORT, LONGROPE_LONG = "rope_factors_short.weight", "rope_factors_long.weight"
DEFAULT_ROPE_BASE = 10_000.0

GGUF_ARCHITECTURES = ("llama", "qwen2", "qwen3", "phi3")
_PERMUTED = {"llama"}
"""Whose files hold the two halves of a rotary pair next to each other; the others have them half a head apart."""

_GLOBAL = {"embedding": "token_embd", "head": "output", "norm": "output_norm"}
_LAYER = {
    "attention_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "qkv": "attn_qkv",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "o": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "gate_up": "ffn_up",
    "down": "ffn_down",
}


class GgufDecoder:
    """A `DecoderSource` over a GGUF file.

    Raises (constructor):
        Unsupported: another architecture, or a variant of one. CorruptModel: sizes and tensors disagree.
    """

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self.shape = shape = _shape(file)
        shape.check(file.name)
        expected = {_tensor(name): size for name, size in shape.weights().items()}
        found = {name: tensor.shape for name, tensor in file.tensors.items()}
        ignored = frozenset({LLAMA3_DIVISORS, LONGROPE_SHORT, LONGROPE_LONG})
        check_weights(file.name, shape.architecture, expected, found, ignored)

    def matrix(self, name: str) -> Weight:
        shape, kind = self.shape, name.rpartition(".")[2]
        stored, rows = shape.place(name)
        weight = self._file.weight(_tensor(stored))[rows]
        if shape.architecture not in _PERMUTED or kind not in ("q", "k"):
            return weight
        heads = shape.heads if kind == "q" else shape.kv_heads
        return weight[np.arange(heads * shape.head_dim).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)]

    def vector(self, name: str) -> Float32:
        return to_float32(self._file.weight(_tensor(name)))


def _tensor(name: str) -> str:
    """GGUF's name of our weight `name`."""
    layer, dot, kind = name.rpartition(".")
    if not dot:
        return f"{_GLOBAL[name]}.weight"
    if kind.endswith("_bias"):
        return f"blk.{layer}.{_LAYER[kind.removesuffix('_bias')]}.bias"
    return f"blk.{layer}.{_LAYER[kind]}.weight"


def _shape(file: GgufFile) -> DecoderShape:
    architecture = file.text("general.architecture")
    if architecture not in GGUF_ARCHITECTURES:
        known = ", ".join(GGUF_ARCHITECTURES)
        raise Unsupported(f"architecture {architecture!r} of {file.name}; GGUF files of {known} can be converted")
    if file.integer(f"{architecture}.expert_count"):
        raise Unsupported(f"mixture of experts in {file.name}")
    heads = _required(file, architecture, "attention.head_count")
    if heads < 1:
        raise CorruptModel(file.name, f"{architecture}.attention.head_count is {heads}")
    hidden, layers = _required(file, architecture, "embedding_length"), _required(file, architecture, "block_count")
    head_dim = file.integer(f"{architecture}.attention.key_length") or hidden // heads
    if (file.integer(f"{architecture}.attention.value_length") or head_dim) != head_dim:
        raise Unsupported(f"values of another size than keys in {file.name}")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CorruptModel(file.name, "tensor token_embd.weight is missing or no matrix")
    epsilon = file.number(f"{architecture}.attention.layer_norm_rms_epsilon")
    rotary_dim = file.integer(f"{architecture}.rope.dimension_count") or head_dim
    context_length = _required(file, architecture, "context_length")
    rope, context_length = _rope(file, architecture, rotary_dim, context_length)
    return DecoderShape(
        architecture=architecture,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_required(file, architecture, "attention.head_count_kv", heads),
        head_dim=head_dim,
        inner=_required(file, architecture, "feed_forward_length"),
        vocab=embedding.shape[0],
        context_length=context_length,
        epsilon=1e-5 if epsilon is None else epsilon,
        rope=rope,
        rotary_dim=rotary_dim,
        windows=(_window(file, architecture),) * min(max(layers, 0), MAX_LAYERS),
        tied="output.weight" not in file.tensors,
    )


def _window(file: GgufFile, architecture: str) -> int | None:
    """The sliding window of every layer; files write 0 for none."""
    window = file.integer(f"{architecture}.attention.sliding_window") or None
    if window is not None and architecture in ("qwen2", "qwen3"):
        # In these families some layers have the window and some have not, and a GGUF file does not say which.
        raise Unsupported(f"the sliding window of the {architecture} model {file.name}; give the safetensors folder")
    return window


def _rope(file: GgufFile, architecture: str, width: int, context: int) -> tuple[Rope, int]:
    """The rotation, and the context in which it holds."""
    kind = file.text(f"{architecture}.rope.scaling.type") or "none"
    base = file.number(f"{architecture}.rope.freq_base")
    base = DEFAULT_ROPE_BASE if base is None else base
    if LONGROPE_SHORT in file.tensors:
        if kind not in ("none", "longrope"):
            raise Unsupported(f"rotary scaling {kind!r} beside LongRoPE factors in {file.name}")
        original = _required(file, architecture, "rope.scaling.original_context_length", context)
        if original < 2:
            raise CorruptModel(file.name, f"{architecture}.rope.scaling.original_context_length is {original}")
        magnitude = file.number(f"{architecture}.rope.scaling.attn_factor")
        if magnitude is None:
            magnitude = longrope_magnitude(context / original, original)
        if magnitude <= 0:
            raise CorruptModel(file.name, f"{architecture}.rope.scaling.attn_factor is {magnitude}")
        divisors = _divisors(file, LONGROPE_SHORT, width)
        return Rope(base, divisors=divisors, magnitude=magnitude), min(context, original)
    if kind not in ("none", "linear"):
        raise Unsupported(
            f"rotary scaling {kind!r} of {file.name}; 'linear', llama3 and LongRoPE factors can be converted"
        )
    llama3 = _divisors(file, LLAMA3_DIVISORS, width) if LLAMA3_DIVISORS in file.tensors else None
    factor = "rope.scaling.factor" if kind == "linear" else "rope.scale_linear"
    linear = file.number(f"{architecture}.{factor}")
    return Rope(base, linear=linear or 1.0, divisors=llama3), context


def _divisors(file: GgufFile, name: str, width: int) -> Float32:
    if file.tensors[name].shape != (width // 2,):
        raise CorruptModel(file.name, f"tensor {name} must have {width // 2} numbers")
    divisors = to_float32(file.weight(name))
    if not (np.isfinite(divisors) & (divisors > 0)).all():
        raise CorruptModel(file.name, f"tensor {name} holds numbers that are not positive")
    return divisors


def _required(file: GgufFile, architecture: str, key: str, default: int | None = None) -> int:
    name = f"{architecture}.{key}"
    if isinstance(file.metadata.get(name), np.ndarray):
        raise Unsupported(f"{name} differs between the layers of {file.name}")
    value = file.integer(name)
    if value is None:
        value = default
    if value is None:
        raise CorruptModel(file.name, f"metadata {name} is missing")
    return value
