"""What a Llama-family model is, whatever file it comes from: its sizes and where its weights are."""

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
class DecoderShape:
    """Sizes and constants. heads: query heads; inner: width of the feed-forward block; epsilon: of the RMS norms;
    tied: the head shares the embedding's weights."""

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
    tied: bool

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
        if self.head_dim % 16:
            raise Unsupported(f"head size {self.head_dim} of {file}; ONNX Runtime's attention takes multiples of 16")

    def weights(self) -> dict[str, tuple[int, ...]]:
        """Our name of every weight and its shape, rows (outputs) first."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"embedding": (self.vocab, self.hidden), "norm": (self.hidden,)}
        if not self.tied:
            shapes["head"] = (self.vocab, self.hidden)
        for i in range(self.layers):
            shapes |= {
                f"{i}.attention_norm": (self.hidden,),
                f"{i}.q": (queries, self.hidden),
                f"{i}.k": (keys, self.hidden),
                f"{i}.v": (keys, self.hidden),
                f"{i}.o": (self.hidden, queries),
                f"{i}.feed_forward_norm": (self.hidden,),
                f"{i}.gate": (self.inner, self.hidden),
                f"{i}.up": (self.inner, self.hidden),
                f"{i}.down": (self.hidden, self.inner),
            }
        return shapes


class DecoderSource(Protocol):
    """A model file, opened and checked: every weight of `shape.weights()` is there in its shape."""

    shape: DecoderShape

    def matrix(self, name: str) -> Weight:
        """The weight called `name` in `DecoderShape.weights`; q and k with their heads in half-split rotary order."""

    def vector(self, name: str) -> Float32:
        """A norm's weight, float32 [hidden]."""


def check_weights(
    file: str, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], ignored: frozenset[str]
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
            raise Unsupported(f"tensor {name[:200]} of {file} has no place in the Llama architecture")
