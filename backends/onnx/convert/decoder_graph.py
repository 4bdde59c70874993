"""The ONNX graph of a decoder over ONNX Runtime's fused operators.

Per layer: SkipSimplifiedLayerNormalization, one matrix for q, k and v (with its bias, if any), a norm over each head of
q and k (if any), GroupQueryAttention (rotary embedding, sliding window and KV cache inside), output matrix, norm, one
matrix for gate and up, SiLU, product, down matrix. Inputs and outputs are described at `convert_decoder`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backends.onnx.config import Precision
from backends.onnx.convert.decoder import DecoderSource
from backends.onnx.convert.graph import MICROSOFT, GraphBuilder
from backends.onnx.convert.quantise import BLOCK, Int8Blocks, to_float32, to_int4, to_int8

ACCURACY_LEVEL = 4
"""MatMulNBits rounds activations to int8 per block: 20 times the decode speed of level 0 at KL 0.0045 (CPU only)."""


class DecoderGraph:
    """Adds one model to a builder."""

    def __init__(self, builder: GraphBuilder, source: DecoderSource, precision: Precision) -> None:
        self._graph = builder
        self._source = source
        self._shape = source.shape
        self._precision = precision
        self.dtype: Any = np.float16 if precision == "fp16" else np.float32
        """Element type of activations and KV cache."""

    def build(self, progress: Callable[[float], None]) -> None:
        """Add everything from `input_ids` to `logits`; `progress` gets the share that is done, 0 to 1."""
        shape, graph = self._shape, self._graph
        graph.input("input_ids", np.int64, ["batch", "seq"])
        graph.input("seqlens_k", np.int32, ["batch"])
        graph.input("total_len", np.int32, [])
        graph.input("logit_rows", np.int64, ["rows"])
        graph.output("logits", np.float32, ["rows", shape.vocab])
        tables = shape.rope.tables(shape.rotary_dim, shape.context_length)
        for name, table in zip(("cos", "sin"), tables, strict=True):
            graph.constant(name, table.astype(self.dtype))
        stream, branch = self._embedding(), ""
        progress(1 / (shape.layers + 2))
        for layer in range(shape.layers):
            stream, branch = self._layer(layer, stream, branch)
            progress((layer + 2) / (shape.layers + 2))
        self._logits(stream, branch)
        progress(1.0)

    def _embedding(self) -> str:
        graph, embedding = self._graph, self._source.matrix("embedding")
        if self._precision in ("fp32", "fp16"):
            table = graph.constant("embedding", to_float32(embedding).astype(self.dtype))
            return graph.node("Gather", [table, "input_ids"])
        codes, scales = self._int8("embedding", to_int8([embedding]))
        # MatMulNBits of a tied head wants the codes in blocks, the look-up wants them in rows: the same bytes.
        rows = graph.reshaped("embedding.rows", codes, [self._shape.vocab, self._shape.hidden])
        return graph.node(
            "GatherBlockQuantized",
            [rows, "input_ids", scales],
            domain=MICROSOFT,
            bits=8,
            block_size=BLOCK,
            gather_axis=0,
            quantize_axis=1,
        )

    def _layer(self, i: int, stream: str, branch: str) -> tuple[str, str]:
        """One block on the residual `stream` and the `branch` still to be added to it; returns the next two."""
        shape, graph, window = self._shape, self._graph, self._shape.windows[i]
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        normed, stream = self._norm(f"{i}.attention_norm", stream, branch)
        qkv = self._matmul(
            normed,
            f"{i}.qkv",
            [f"{i}.{part}" for part in "qkv"],
            queries + 2 * keys,
            shape.hidden,
            biases=[f"{i}.{part}_bias" for part in "qkv"] if shape.features.qkv_bias else [],
        )
        attended = self._normed_heads(i, qkv) if shape.features.qk_norm else [qkv, "", ""]
        cache: list[int | str] = ["batch", shape.kv_heads, "max_len", shape.head_dim]
        past = [graph.input(f"past.{i}.{part}", self.dtype, cache) for part in "kv"]
        present = [f"present.{i}.{part}" for part in "kv"]
        for name in present:
            graph.output(name, self.dtype, cache)
        attention = graph.nodes(
            "GroupQueryAttention",
            [*attended, *past, "seqlens_k", "total_len", "cos", "sin"],
            [f"{i}.attention", *present],
            domain=MICROSOFT,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=1,
            rotary_interleaved=0,
            scale=float(shape.head_dim**-0.5),
            **({} if window is None else {"local_window_size": window}),
        )[0]
        branch = self._matmul(attention, f"{i}.o", [f"{i}.o"], shape.hidden, queries)
        normed, stream = self._norm(f"{i}.feed_forward_norm", stream, branch)
        both = self._matmul(normed, f"{i}.gate_up", [f"{i}.gate", f"{i}.up"], 2 * shape.inner, shape.hidden)
        gate, up = graph.nodes("Split", [both], [f"{i}.gate", f"{i}.up"], axis=-1, num_outputs=2)
        # QuickGelu(x, alpha) is x * sigmoid(alpha * x): with alpha 1 it is SiLU in one operator.
        product = graph.node("Mul", [graph.node("QuickGelu", [gate], domain=MICROSOFT, alpha=1.0), up])
        return stream, self._matmul(product, f"{i}.down", [f"{i}.down"], shape.hidden, shape.inner)

    def _normed_heads(self, i: int, qkv: str) -> list[str]:
        """q, k and v apart, each head of q and k under its RMS norm."""
        shape, graph = self._shape, self._graph
        sizes = [shape.heads * shape.head_dim, *[shape.kv_heads * shape.head_dim] * 2]
        parts = [f"{i}.{part}" for part in "qkv"]
        graph.nodes("Split", [qkv, graph.constant(f"{i}.qkv.sizes", np.array(sizes, np.int64))], parts, axis=-1)
        for part, size in zip("qk", sizes, strict=False):
            split = graph.constant(
                f"{i}.{part}.heads", np.array([0, 0, size // shape.head_dim, shape.head_dim], np.int64)
            )
            joined = graph.constant(f"{i}.{part}.joined", np.array([0, 0, size], np.int64))
            normed, _ = self._norm(f"{i}.{part}_norm", graph.node("Reshape", [f"{i}.{part}", split]), "")
            parts["qk".index(part)] = graph.node("Reshape", [normed, joined])
        return parts

    def _logits(self, stream: str, branch: str) -> None:
        shape, graph = self._shape, self._graph
        # Only rows that somebody reads pass the head: for a long prompt that is one of thousands.
        total = graph.node("Add", [stream, branch])
        flat = graph.node("Reshape", [total, graph.constant("flat", np.array([-1, shape.hidden], np.int64))])
        rows = graph.node("Gather", [flat, "logit_rows"], axis=0)
        normed, _ = self._norm("norm", rows, "")
        final = "logits.fp16" if self._precision == "fp16" else "logits"
        if self._precision in ("fp32", "fp16"):
            table = "embedding"
            if not shape.tied:
                table = graph.constant("head", to_float32(self._source.matrix("head")).astype(self.dtype))
            graph.node("Gemm", [normed, table], output=final, transB=1)
        else:
            prefix = "embedding"
            if not shape.tied:
                prefix = "head"
                self._int8(prefix, to_int8([self._source.matrix("head")]))
            self._quantised(normed, [f"{prefix}.q", f"{prefix}.s"], shape.vocab, shape.hidden, bits=8, output=final)
        if final != "logits":
            graph.node("Cast", [final], output="logits", to=1)

    def _norm(self, name: str, stream: str, branch: str) -> tuple[str, str]:
        """RMS norm of `stream + branch`; returns it and the sum."""
        weight = self._graph.constant(name, self._source.vector(name).astype(self.dtype))
        epsilon = self._shape.epsilon
        if not branch:
            normed = self._graph.node("SimplifiedLayerNormalization", [stream, weight], axis=-1, epsilon=epsilon)
            return normed, stream
        outputs = [f"{name}.out", "", "", f"{name}.sum"]
        inputs = [stream, branch, weight]
        self._graph.nodes("SkipSimplifiedLayerNormalization", inputs, outputs, domain=MICROSOFT, epsilon=epsilon)
        return outputs[0], outputs[3]

    def _matmul(
        self, x: str, name: str, parts: list[str], outputs: int, inputs: int, biases: Sequence[str] = ()
    ) -> str:
        """`x` times the matrices `parts` stacked by rows, [outputs, inputs] together, plus `biases` likewise."""
        graph, weights = self._graph, [self._source.matrix(part) for part in parts]
        bias = ""
        if biases:
            stacked = np.concatenate([self._source.vector(part) for part in biases])
            bias = graph.constant(f"{name}.b", stacked.astype(self.dtype))
        if self._precision in ("fp32", "fp16"):
            stacked = np.concatenate([to_float32(w) for w in weights])
            product = graph.node("MatMul", [x, graph.constant(f"{name}.w", stacked.T.astype(self.dtype))])
            return graph.node("Add", [product, bias]) if bias else product
        if self._precision == "int8":
            return self._quantised(x, self._int8(name, to_int8(weights)), outputs, inputs, bits=8, bias=bias)
        codes4 = to_int4(weights)
        constants = [
            graph.constant(f"{name}.q", codes4.codes),
            graph.constant(f"{name}.s", codes4.scales),
            graph.constant(f"{name}.z", codes4.zero_points),
        ]
        return self._quantised(x, constants, outputs, inputs, bits=4, bias=bias)

    def _int8(self, name: str, blocks: Int8Blocks) -> list[str]:
        return [
            self._graph.constant(f"{name}.q", blocks.codes),
            self._graph.constant(f"{name}.s", blocks.scales),
        ]

    def _quantised(
        self, x: str, constants: list[str], outputs: int, inputs: int, *, bits: int, bias: str = "", output: str = ""
    ) -> str:
        # Codes, scales and zero points, then the order of groups, which is not used, and the bias.
        optional = [*[""] * (4 - len(constants)), bias] if bias else []
        return self._graph.node(
            "MatMulNBits",
            [x, *constants, *optional],
            domain=MICROSOFT,
            output=output,
            K=inputs,
            N=outputs,
            bits=bits,
            block_size=BLOCK,
            accuracy_level=ACCURACY_LEVEL,
        )
