"""The ONNX graph of a BERT encoder over ONNX Runtime's fused operators, with what makes a vector or labels of it.

Inputs and outputs are described at `convert_encoder` and `convert_classifier`. In "int8" the products of the layers are
integer products: weights are int8 with a scale per output, activations two digits of 8 bits each, so they lose nothing
that shows. One digit would: a few channels are twenty times as large as all others (Dettmers et al. 2022,
arXiv:2208.07339) and would take its resolution (cosine to fp32 0.98). The steps of the digits are fixed, from bounds
that hold for every text, so a vector depends on no neighbour and on no calibration.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from backends.onnx.convert.encoder import ClassifierSource, EncoderSource
from backends.onnx.convert.graph import MICROSOFT, GraphBuilder
from backends.onnx.convert.quantise import Float32, to_int8_outputs

EXACT_INPUTS = 2
"""Inputs of each down projection that stay float32: those with the largest weights, which would take the resolution
of all others in their column (7.9 against 0.15 in MiniLM)."""
DIGIT = 254
"""Lower steps in an upper one: what rounding leaves, half a step each way, fills the lower digit's range."""
GELU_MINIMUM = 0.17


@dataclass(frozen=True, slots=True)
class Normed:
    """What a layer normalisation puts out, scale * z + bias, where z has mean 0 and length at most sqrt(hidden)."""

    scale: Float32
    bias: Float32

    @property
    def bound(self) -> float:
        """No value is larger: one entry of such a z is at most sqrt(hidden - 1)."""
        return float((np.abs(self.scale) * math.sqrt(len(self.scale) - 1) + np.abs(self.bias)).max())

    def bound_through(self, weight: Float32, bias: Float32) -> float:
        """No output of the linear layer is larger, by Cauchy and Schwarz. weight: [outputs, hidden]."""
        rows = weight * self.scale
        rows -= rows.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(rows, axis=1)
        return float((lengths * math.sqrt(len(self.scale)) + np.abs(weight @ self.bias + bias)).max())


class EncoderGraph:
    """Adds one sentence encoder to a builder."""

    def __init__(self, builder: GraphBuilder, source: EncoderSource, precision: Literal["int8", "fp32"]) -> None:
        self._graph = builder
        self._source = source
        self._shape = source.shape
        self._quantise = precision == "int8"

    def build(self, progress: Callable[[float], None]) -> None:
        """Add everything from `input_ids` to the output; `progress` gets the share that is done, 0 to 1."""
        graph, shape = self._graph, self._shape
        graph.input("input_ids", np.int32, ["batch", "seq"])
        graph.input("attention_mask", np.int32, ["batch", "seq"])
        x = self._embedding()
        normed = Normed(*self._source.embedding_norm())
        progress(1 / (shape.layers + 1))
        for layer in range(shape.layers):
            x, normed = self._layer(layer, x, normed)
            progress((layer + 2) / (shape.layers + 1))
        self._finish(x)

    def _finish(self, x: str) -> None:
        self._graph.output("embedding", np.float32, ["batch", self._shape.hidden])
        self._graph.node("LpNormalization", [self._pooled(x)], output="embedding", axis=-1, p=2)

    def _embedding(self) -> str:
        graph, (words, positions) = self._graph, self._source.embeddings()
        scale, bias = self._source.embedding_norm()
        inputs = [
            "input_ids",
            "",  # no segment ids: every text is token type 0, which is in the position table
            graph.constant("words", words),
            graph.constant("positions", positions),
            "",
            graph.constant("embedding_norm.scale", scale),
            graph.constant("embedding_norm.bias", bias),
        ]
        outputs = ["embedded", "embedded.mask"]
        return graph.nodes("EmbedLayerNormalization", inputs, outputs, domain=MICROSOFT, epsilon=self._shape.epsilon)[0]

    def _layer(self, i: int, x: str, normed: Normed) -> tuple[str, Normed]:
        graph, source = self._graph, self._source
        qkv = graph.node("Sum", self._linear(x, i, ["q", "k", "v"], normed.bound))
        q, k, v = graph.nodes("Split", [qkv], [f"{i}.q", f"{i}.k", f"{i}.v"], axis=-1, num_outputs=3)
        inputs = [q, k, v, "", "attention_mask"]
        attention = graph.node("MultiHeadAttention", inputs, domain=MICROSOFT, num_heads=self._shape.heads)
        # Attention is a weighted mean of values.
        x, normed = self._norm(
            self._linear(attention, i, ["o"], normed.bound_through(*source.linear(i, "v"))), x, i, "attention_norm"
        )
        inner = graph.node("Gelu", [graph.node("Sum", self._linear(x, i, ["up"], normed.bound))], domain=MICROSOFT)
        bound = max(GELU_MINIMUM, normed.bound_through(*source.linear(i, "up")))
        return self._norm(self._linear(inner, i, ["down"], bound), x, i, "output_norm")

    def _pooled(self, x: str) -> str:
        """[batch, hidden]; a sum in place of the mean, since only the direction survives the normalisation."""
        graph = self._graph
        if self._shape.pooling == "cls":
            return self._first(x)
        axis = graph.constant("axis", np.array([1], np.int64))
        mask = graph.node("Unsqueeze", [graph.node("Cast", ["attention_mask"], to=1), axis])
        return graph.node("Squeeze", [graph.node("MatMul", [mask, x]), axis])

    def _first(self, x: str) -> str:
        """[batch, hidden]: the state of each text's first token."""
        return self._graph.node("Gather", [x, self._graph.constant("first", np.array(0, np.int64))], axis=1)

    def _norm(self, terms: list[str], skip: str, layer: int, kind: str) -> tuple[str, Normed]:
        """The norm of the sum of `terms` and `skip`.

        As two operators, since SkipLayerNormalization is slow on the CPU (0.63 against 0.12 ms for 512 x 384). `Sum`,
        because ONNX Runtime would fuse an `Add` to just that.
        """
        scale, bias = self._source.norm(layer, kind)
        name = f"{layer}.{kind}"
        total = self._graph.node("Sum", [*terms, skip])
        inputs = [total, self._graph.constant(f"{name}.scale", scale), self._graph.constant(f"{name}.bias", bias)]
        output = self._graph.node("LayerNormalization", inputs, axis=-1, epsilon=self._shape.epsilon)
        return output, Normed(scale, bias)

    def _linear(self, x: str, layer: int, kinds: list[str], bound: float) -> list[str]:
        """Terms whose sum is `x` times the matrices of `kinds` stacked by rows, plus their biases.

        bound: no value of `x` is larger.
        """
        graph, parts = self._graph, [self._source.linear(layer, kind) for kind in kinds]
        name = f"{layer}.{''.join(kinds)}"
        bias = graph.constant(f"{name}.bias", np.concatenate([b for _, b in parts]))
        weight: Float32 = np.concatenate([w for w, _ in parts])
        if not self._quantise:
            return [graph.node("MatMul", [x, graph.constant(f"{name}.weight", weight.T)]), bias]
        terms: list[str] = []
        if kinds == ["down"]:
            terms, weight = self._exact_inputs(x, name, weight)
        quantised = to_int8_outputs(weight)
        codes = graph.constant(f"{name}.codes", quantised.codes)
        scales = graph.constant(f"{name}.scales", quantised.scales)
        # uint8 activations with int8 weights: the pair that ONNX Runtime has fast kernels for on x86.
        zero = graph.constant(f"{name}.zero", np.array(128, np.uint8))
        upper_step = graph.constant(f"{name}.upper_step", np.array(bound / 127, np.float32))
        lower_step = graph.constant(f"{name}.lower_step", np.array(bound / 127 / DIGIT, np.float32))
        upper = graph.node("QuantizeLinear", [x, upper_step, zero])
        rest = graph.node("Sub", [x, graph.node("DequantizeLinear", [upper, upper_step, zero])])
        lower = graph.node("QuantizeLinear", [rest, lower_step, zero])
        # A name for each product: where there is no VNNI, ONNX Runtime rewrites the codes for each of their users.
        again = graph.reshaped(f"{name}.codes_again", codes, list(quantised.codes.shape))
        for digit, matrix, step, added in ((upper, codes, upper_step, bias), (lower, again, lower_step, "")):
            inputs = [digit, matrix, step, scales, zero, "", added]
            terms.append(graph.node("MatMulIntegerToFloat", inputs, domain=MICROSOFT))
        return terms

    def _exact_inputs(self, x: str, name: str, weight: Float32) -> tuple[list[str], Float32]:
        """The float32 product with the inputs of the largest weights, and the matrix without them."""
        graph = self._graph
        largest = np.sort(np.argsort(-np.abs(weight).max(axis=0))[:EXACT_INPUTS])
        values = graph.node("Gather", [x, graph.constant(f"{name}.exact", largest.astype(np.int64))], axis=-1)
        product = graph.node("MatMul", [values, graph.constant(f"{name}.exact_weight", weight[:, largest].T)])
        rest = weight.copy()
        rest[:, largest] = 0
        return [product], rest


class ClassifierGraph(EncoderGraph):
    """Adds one classifier to a builder. Its head is small and stays float32."""

    def __init__(self, builder: GraphBuilder, source: ClassifierSource, precision: Literal["int8", "fp32"]) -> None:
        super().__init__(builder, source, precision)
        self._head = source

    def _finish(self, x: str) -> None:
        graph = self._graph
        graph.output("probabilities", np.float32, ["batch", len(self._head.labels)])
        x = graph.node("Tanh", [self._dense("pooler", self._first(x), *self._head.pooler())])
        graph.node("Softmax", [self._dense("classifier", x, *self._head.head())], output="probabilities", axis=-1)

    def _dense(self, name: str, x: str, weight: Float32, bias: Float32) -> str:
        product = self._graph.node("MatMul", [x, self._graph.constant(f"{name}.weight", weight.T)])
        return self._graph.node("Add", [product, self._graph.constant(f"{name}.bias", bias)])
