"""A KV cache of 8 bits: the graph's attention reads and writes int8, with a scale for each number of each head.

The scales are constants of the graph (GroupQueryAttention of ONNX Runtime from 1.32 on, `k_quant_type` PER_CHANNEL), so
they are measured before: the largest key and value of each channel over a text of many kinds, with room above. What
lies beyond is cut off. The scales follow from the model alone, and so do answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backends.errors import Unsupported
from backends.onnx.config import DecoderConfig
from backends.onnx.kv_cache import kv_dtype

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ROOM = 1.25
"""Of the range over the largest number that was seen."""
MAX_TOKENS = 512
TEXT = """<p>On 3 March 2021 the committee met in Zürich; 14 of its 23 members were there.</p>
def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
Dear Ms Okafor, thank you for your letter. We're sorry that the parcel came late, and we'll send you a new one!
{"name": "Ada", "tags": ["a", "b"], "score": -12.5e3, "ok": true, "none": null}
| city | population | | Wien | 1 982 097 | | 東京 | 14 094 034 |
Question: What is the capital of France? Answer: Paris. Q: Why is the sky blue? A: Because air scatters short waves.
The ship had sailed for eleven days when the cook, who never spoke, said that the water was turning green. Nobody
laughed. SELECT id, sum(price) FROM orders WHERE day > '2024-01-01' GROUP BY id; El perro duerme en la casa.
1. Mix flour, eggs and milk. 2. Let it rest. 3. Bake at 180 °C for 25 minutes. x^2 + 3x - 4 = 0, so x = 1 or x = -4.
user: hi!!! can u help me?? assistant: Of course. What is it about? http://example.com/a?b=c&d=%20 #include <stdio.h>
"""
Scales = dict[str, NDArray[np.float32]]
"""By part, `{layer}.k` or `{layer}.v`: float32 [kv_heads * head_dim]."""


def measure_scales(session: InferenceSession, config: DecoderConfig, ids: Sequence[int]) -> Scales:
    """The scales of a model, by what it keeps of these tokens. session: of its graph as converted, on the CPU."""
    count = min(len(ids), MAX_TOKENS, config.context_length)
    binding, dtype = session.io_binding(), kv_dtype(config.kv_dtype)
    inputs = {
        "input_ids": np.array([ids[:count]], np.int64),
        "seqlens_k": np.array([count - 1], np.int32),
        "total_len": np.array(count, np.int32),
        "logit_rows": np.array([count - 1], np.int64),
    }
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    kept = {
        f"{i}.{part}": np.zeros((1, config.kv_heads, count, config.head_dim), dtype)
        for i in range(config.layers)
        for part in "kv"
    }
    for name, buffer in kept.items():
        binding.bind_input(f"past.{name}", "cpu", 0, dtype.type, buffer.shape, buffer.ctypes.data)
        binding.bind_output(f"present.{name}", "cpu", 0, dtype.type, buffer.shape, buffer.ctypes.data)
    binding.bind_output("logits")
    session.run_with_iobinding(binding)
    return {name: _scales(buffer.astype(np.float32)) for name, buffer in kept.items()}


def quantise_kv(graph: Any, scales: Scales) -> None:
    """Change a decoder's graph, an onnx.ModelProto, to keep keys and values in int8.

    Raises:
        Unsupported: its attention is not as our converter writes it.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = graph.graph
    for node in graph.node:
        if node.op_type != "GroupQueryAttention":
            continue
        if len(node.input) > 9 or not node.input[3].startswith("past."):
            raise Unsupported("engine.kv_bits 8 for a graph that another program made; pull the model from its weights")
        parts = [name.removeprefix("past.") for name in node.input[3:5]]
        node.input.extend([""] * (12 - len(node.input)) + [f"{part}.scale" for part in parts])
        for part in parts:
            graph.initializer.append(numpy_helper.from_array(scales[part], f"{part}.scale"))
        for key, value in (("k_quant_type", "PER_CHANNEL"), ("v_quant_type", "PER_CHANNEL"), ("kv_cache_bit_width", 8)):
            node.attribute.append(helper.make_attribute(key, value))
    for value in (*graph.input, *graph.output):
        if value.name.startswith(("past.", "present.")):
            value.type.tensor_type.elem_type = TensorProto.INT8


def _scales(buffer: NDArray[np.float32]) -> NDArray[np.float32]:
    largest = np.abs(buffer[0]).max(axis=1).reshape(-1)
    return np.asarray(np.maximum(largest, 1e-6) * np.float32(ROOM / 127), np.float32)
