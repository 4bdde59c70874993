"""A Llama model from a GGUF file."""

from __future__ import annotations

import numpy as np

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert.decoder import DecoderShape, check_weights
from backends.onnx.convert.gguf_file import GgufFile
from backends.onnx.convert.quantise import Float32, Int8Blocks, Weight, to_float32
from backends.onnx.convert.rope import Rope

ROPE_DIVISORS = "rope_freqs.weight"
DEFAULT_ROPE_BASE = 10_000.0

_GLOBAL = {"embedding": "token_embd", "head": "output", "norm": "output_norm"}
_LAYER = {
    "attention_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


class GgufDecoder:
    """A `DecoderSource` over a GGUF file.

    Raises (constructor):
        Unsupported: another architecture, or a variant of this one. CorruptModel: sizes and tensors disagree.
    """

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self.shape = _shape(file)
        self.shape.check(file.name)
        expected = {_tensor(name): shape for name, shape in self.shape.weights().items()}
        found = {name: tensor.shape for name, tensor in file.tensors.items()}
        check_weights(file.name, expected, found, frozenset({ROPE_DIVISORS}))

    def matrix(self, name: str) -> Weight:
        weight = self._file.weight(_tensor(name))
        kind = name.rpartition(".")[2]
        if kind not in ("q", "k"):
            return weight
        # GGUF holds the two halves of a rotary pair next to each other; our graph, like Hugging Face, has them half a
        # head apart.
        heads = self.shape.heads if kind == "q" else self.shape.kv_heads
        order = np.arange(heads * self.shape.head_dim).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
        return weight.rows(order) if isinstance(weight, Int8Blocks) else weight[order]

    def vector(self, name: str) -> Float32:
        return to_float32(self._file.weight(_tensor(name)))


def _tensor(name: str) -> str:
    """GGUF's name of our weight `name`."""
    layer, dot, kind = name.rpartition(".")
    return f"blk.{layer}.{_LAYER[kind]}.weight" if dot else f"{_GLOBAL[name]}.weight"


def _shape(file: GgufFile) -> DecoderShape:
    architecture = file.text("general.architecture")
    if architecture != "llama":
        raise Unsupported(f"architecture {architecture!r} of {file.name}; GGUF files of 'llama' can be converted")
    if file.integer("llama.expert_count"):
        raise Unsupported(f"mixture of experts in {file.name}")
    heads = _required(file, "attention.head_count")
    if heads < 1:
        raise CorruptModel(file.name, f"llama.attention.head_count is {heads}")
    hidden = _required(file, "embedding_length")
    head_dim = file.integer("llama.attention.key_length") or hidden // heads
    if (file.integer("llama.attention.value_length") or head_dim) != head_dim:
        raise Unsupported(f"values of another size than keys in {file.name}")
    if (file.integer("llama.rope.dimension_count") or head_dim) != head_dim:
        raise Unsupported(f"rotary embedding of a part of each head in {file.name}")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CorruptModel(file.name, "tensor token_embd.weight is missing or no matrix")
    epsilon = file.number("llama.attention.layer_norm_rms_epsilon")
    return DecoderShape(
        layers=_required(file, "block_count"),
        hidden=hidden,
        heads=heads,
        kv_heads=_required(file, "attention.head_count_kv", heads),
        head_dim=head_dim,
        inner=_required(file, "feed_forward_length"),
        vocab=embedding.shape[0],
        context_length=_required(file, "context_length"),
        epsilon=1e-5 if epsilon is None else epsilon,
        rope=_rope(file, head_dim),
        tied="output.weight" not in file.tensors,
    )


def _rope(file: GgufFile, head_dim: int) -> Rope:
    kind = file.text("llama.rope.scaling.type") or "none"
    if kind not in ("none", "linear"):
        raise Unsupported(f"rotary scaling {kind!r} of {file.name}; 'linear' and llama3 factors can be converted")
    divisors = None
    if ROPE_DIVISORS in file.tensors:
        if file.tensors[ROPE_DIVISORS].shape != (head_dim // 2,):
            raise CorruptModel(file.name, f"tensor {ROPE_DIVISORS} must have {head_dim // 2} numbers")
        divisors = to_float32(file.weight(ROPE_DIVISORS))
        if not (np.isfinite(divisors) & (divisors > 0)).all():
            raise CorruptModel(file.name, f"tensor {ROPE_DIVISORS} holds numbers that are not positive")
    linear = file.number("llama.rope.scaling.factor") if kind == "linear" else file.number("llama.rope.scale_linear")
    base = file.number("llama.rope.freq_base")
    return Rope(DEFAULT_ROPE_BASE if base is None else base, linear=linear or 1.0, divisors=divisors)


def _required(file: GgufFile, key: str, default: int | None = None) -> int:
    name = f"llama.{key}"
    if isinstance(file.metadata.get(name), np.ndarray):
        raise Unsupported(f"{name} differs between the layers of {file.name}")
    value = file.integer(name)
    if value is None:
        value = default
    if value is None:
        raise CorruptModel(file.name, f"metadata {name} is missing")
    return value
