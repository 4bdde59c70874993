"""The ONNX graph of a BERT encoder over ONNX Runtime's fused operators, with what makes a vector or labels of it.

Inputs and outputs are described at `convert_encoder` and `convert_classifier`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from backends.onnx.convert.encoder import ClassifierSource, EncoderSource
from backends.onnx.convert.graph import MICROSOFT, GraphBuilder
from backends.onnx.convert.quantise import BLOCK, Float32, to_int8

ACCURACY_LEVEL = 4
"""MatMulNBits rounds activations to int8 per block."""


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
        progress(1 / (shape.layers + 1))
        for layer in range(shape.layers):
            x = self._layer(layer, x)
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

    def _layer(self, i: int, x: str) -> str:
        graph = self._graph
        qkv = self._linear(x, i, ["q", "k", "v"])
        q, k, v = graph.nodes("Split", [qkv], [f"{i}.q", f"{i}.k", f"{i}.v"], axis=-1, num_outputs=3)
        inputs = [q, k, v, "", "attention_mask"]
        attention = graph.node("MultiHeadAttention", inputs, domain=MICROSOFT, num_heads=self._shape.heads)
        x = self._norm(self._linear(attention, i, ["o"]), x, i, "attention_norm")
        inner = graph.node("Gelu", [self._linear(x, i, ["up"])], domain=MICROSOFT)
        return self._norm(self._linear(inner, i, ["down"]), x, i, "output_norm")

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

    def _norm(self, x: str, skip: str, layer: int, kind: str) -> str:
        scale, bias = self._source.norm(layer, kind)
        name = f"{layer}.{kind}"
        inputs = [x, skip, self._graph.constant(f"{name}.scale", scale), self._graph.constant(f"{name}.bias", bias)]
        return self._graph.node("SkipLayerNormalization", inputs, domain=MICROSOFT, epsilon=self._shape.epsilon)

    def _linear(self, x: str, layer: int, kinds: list[str]) -> str:
        """`x` times the matrices of `kinds` stacked by rows, plus their biases."""
        graph, parts = self._graph, [self._source.linear(layer, kind) for kind in kinds]
        name = f"{layer}.{''.join(kinds)}"
        bias = graph.constant(f"{name}.bias", np.concatenate([b for _, b in parts]))
        weights: list[Float32] = [w for w, _ in parts]
        if not self._quantise:
            stacked = np.concatenate(weights)
            return graph.node("Add", [graph.node("MatMul", [x, graph.constant(f"{name}.weight", stacked.T)]), bias])
        blocks = to_int8(list(weights))
        rows, columns = len(blocks.codes), weights[0].shape[1]
        codes, scales = graph.constant(f"{name}.codes", blocks.codes), graph.constant(f"{name}.scales", blocks.scales)
        return graph.node(
            "MatMulNBits",
            [x, codes, scales, "", "", bias],
            domain=MICROSOFT,
            K=columns,
            N=rows,
            bits=8,
            block_size=BLOCK,
            accuracy_level=ACCURACY_LEVEL,
        )


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
