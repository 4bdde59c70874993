"""What a decoder of the Llama shape is, whatever file it comes from: its sizes, its features and its weights.

Root mean square norms before attention and a gated feed-forward block, rotary positions, grouped queries; families
differ in the few features that `Architecture` lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert.quantise import Float32, Weight
from backends.onnx.convert.rope import Rope

MAX_LAYERS = 512
MAX_CONTEXT = 1 << 20
"""Tokens. The rotary tables of the graph have one row for each, so a forged value would fill the memory."""
MAX_WIDTH = 1 << 20


@dataclass(frozen=True, slots=True)
class Architecture:
    """What sets a family apart from plain Llama.

    qkv_bias: q, k and v have biases. qk_norm: an RMS norm over each head of q and k, before the rotation. fused: files
    hold q, k and v as one matrix, and gate and up as another. partial_rotary: the rotation may leave the end of each
    head alone.
    """

    qkv_bias: bool = False
    qk_norm: bool = False
    fused: bool = False
    partial_rotary: bool = False


ARCHITECTURES = {
    "llama": Architecture(),
    "mistral": Architecture(),
    "qwen2": Architecture(qkv_bias=True),
    "qwen3": Architecture(qk_norm=True),
    "phi3": Architecture(fused=True, partial_rotary=True),
}
"""By `model_type` of Hugging Face, which is also GGUF's name, but that GGUF calls Mistral "llama"."""

_FUSED = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate_up", "up": "gate_up"}


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes and constants. heads: query heads; inner: width of the feed-forward block; epsilon: of the RMS norms;
    rotary_dim: leading numbers of each head that are rotated; windows: for each layer how many tokens attention sees,
    the newest included, None for all; tied: the head shares the embedding's weights."""

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocab: int
    context_length: int
    epsilon: float
    rope: Rope
    rotary_dim: int
    windows: tuple[int | None, ...]
    tied: bool

    @property
    def features(self) -> Architecture:
        """What the architecture has beyond plain Llama."""
        return ARCHITECTURES[self.architecture]

    def check(self, file: str) -> None:
        """Refuse sizes that contradict each other or that our graph cannot express.

        Raises:
            CorruptModel: naming `file`. Unsupported: a head size that ONNX Runtime's attention does not take.
        """
        sizes = {
            "layers": (self.layers, MAX_LAYERS),
            "context length": (self.context_length, MAX_CONTEXT),
            "hidden size": (self.hidden, MAX_WIDTH),
            "attention heads": (self.heads, MAX_WIDTH),
            "key-value heads": (self.kv_heads, MAX_WIDTH),
            "head size": (self.head_dim, MAX_WIDTH),
            "feed-forward size": (self.inner, MAX_WIDTH),
        }
        for name, (value, limit) in sizes.items():
            if not 1 <= value <= limit:
                raise CorruptModel(file, f"{name} is {value}, it must be between 1 and {limit}")
        if self.heads % self.kv_heads:
            raise CorruptModel(file, f"{self.heads} attention heads cannot share {self.kv_heads} key-value heads")
        if not 0 < self.epsilon < 1:
            raise CorruptModel(file, f"the epsilon of the norms is {self.epsilon}")
        if not (self.rope.base > 1 and self.rope.linear >= 1):
            raise CorruptModel(file, f"rotary base {self.rope.base} or scaling factor {self.rope.linear} is impossible")
        for window in self.windows:
            if window is not None and window < 1:
                raise CorruptModel(file, f"a sliding window of {window} tokens is impossible")
        if not 1 <= self.rotary_dim <= self.head_dim:
            raise CorruptModel(file, f"{self.rotary_dim} of {self.head_dim} numbers of a head cannot be rotated")
        if self.rotary_dim < self.head_dim and not self.features.partial_rotary:
            raise Unsupported(f"rotary embedding of a part of each head in the {self.architecture} model of {file}")
        for size, what in ((self.head_dim, "head size"), (self.rotary_dim, "rotated part of each head:")):
            if size % 16:
                raise Unsupported(f"{what} {size} of {file}; ONNX Runtime's attention takes multiples of 16")

    def weights(self) -> dict[str, tuple[int, ...]]:
        """Our name of every weight that a file holds and its shape, rows (outputs) first."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"embedding": (self.vocab, self.hidden), "norm": (self.hidden,)}
        if not self.tied:
            shapes["head"] = (self.vocab, self.hidden)
        layer: dict[str, tuple[int, ...]] = {
            "attention_norm": (self.hidden,),
            "o": (self.hidden, queries),
            "feed_forward_norm": (self.hidden,),
            "down": (self.hidden, self.inner),
        }
        if self.features.fused:
            layer |= {"qkv": (queries + 2 * keys, self.hidden), "gate_up": (2 * self.inner, self.hidden)}
        else:
            layer |= {"q": (queries, self.hidden), "k": (keys, self.hidden), "v": (keys, self.hidden)}
            layer |= {"gate": (self.inner, self.hidden), "up": (self.inner, self.hidden)}
        if self.features.qkv_bias:
            layer |= {"q_bias": (queries,), "k_bias": (keys,), "v_bias": (keys,)}
        if self.features.qk_norm:
            layer |= {"q_norm": (self.head_dim,), "k_norm": (self.head_dim,)}
        return shapes | {f"{i}.{name}": shape for i in range(self.layers) for name, shape in layer.items()}

    def place(self, name: str) -> tuple[str, slice]:
        """The name in `weights` of the matrix that holds the matrix `name`, and its rows there."""
        layer, _, kind = name.rpartition(".")
        if not self.features.fused or kind not in _FUSED:
            return name, slice(None)
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        start, stop = {
            "q": (0, queries),
            "k": (queries, queries + keys),
            "v": (queries + keys, queries + 2 * keys),
            "gate": (0, self.inner),
            "up": (self.inner, 2 * self.inner),
        }[kind]
        return f"{layer}.{_FUSED[kind]}", slice(start, stop)


class DecoderSource(Protocol):
    """A model file, opened and checked: every weight of `shape.weights()` is there in its shape."""

    shape: DecoderShape

    def matrix(self, name: str) -> Weight:
        """The matrix `name`: embedding, head or of layer i `{i}.` and q, k, v, o, gate, up or down, whatever matrix the
        file holds it in; q and k with their heads in half-split rotary order."""

    def vector(self, name: str) -> Float32:
        """The norm or bias `name` of `DecoderShape.weights`, float32 [width]."""


def check_weights(
    file: str,
    architecture: str,
    expected: dict[str, tuple[int, ...]],
    found: dict[str, tuple[int, ...]],
    ignored: frozenset[str],
) -> None:
    """Compare the tensors that a model must have with those that a file has, both under the file's names.

    Raises:
        CorruptModel: one is missing or has another shape.
        Unsupported: the file has one more that is not in `ignored`; leaving it out would change the model.
    """
    for name, shape in expected.items():
        if name not in found:
            raise CorruptModel(file, f"tensor {name} is missing")
        if found[name] != shape:
            raise CorruptModel(file, f"tensor {name} has the shape {found[name]}, the configuration wants {shape}")
    for name in found:
        if name not in expected and name not in ignored:
            raise Unsupported(f"tensor {name[:200]} of {file} has no place in the architecture {architecture}")
