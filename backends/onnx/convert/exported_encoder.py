"""A sentence encoder that optimum exported to ONNX: its graph gets the inputs and the output of our encoders.

optimum writes the states of all tokens (`last_hidden_state`); pooling and length 1 are added behind them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node

from backends.errors import CorruptModel, Unsupported
from backends.onnx.config import DATA_FILE, MODEL_FILE, Pooling

STATES = "last_hidden_state"
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


def write_pooled(exported: Path, directory: Path, pooling: Pooling) -> int:
    """Write the graph `exported`, an .onnx file, with pooling behind it into `directory`; returns the vector's width.

    Raises:
        Unsupported: the graph has another input or no states of its tokens. CorruptModel: it is no graph.
    """
    try:
        model = onnx.load(str(exported))
    except DecodeError as error:
        raise CorruptModel(exported.name, "is not an ONNX graph") from error
    graph = model.graph
    inputs = {value.name for value in graph.input}
    if unknown := sorted(inputs - _INPUTS):
        raise Unsupported(f"an encoder with the input {unknown[0][:80]!r}")
    states = next((value for value in graph.output if value.name == STATES), None)
    width = states.type.tensor_type.shape.dim[-1].dim_value if states is not None else 0
    if width < 1:
        raise Unsupported(f"an encoder whose graph has no output {STATES!r} of a fixed width")
    for node in graph.node:
        node.input[:] = [f"{name}.int64" if name in _INPUTS else name for name in node.input]
    before = [
        make_node("Cast", ["input_ids"], ["input_ids.int64"], to=TensorProto.INT64),
        make_node("Cast", ["attention_mask"], ["attention_mask.int64"], to=TensorProto.INT64),
        make_node("Sub", ["input_ids.int64", "input_ids.int64"], ["token_type_ids.int64"]),
    ]
    nodes = [*before, *graph.node, *_pooling(pooling)]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    for name, number in (("pool.first", 0), ("pool.sequence", [1]), ("pool.width", [-1])):
        graph.initializer.append(numpy_helper.from_array(np.array(number, np.int64), name))
    value = helper.make_tensor_value_info
    graph.input.extend(value(name, TensorProto.INT32, ["batch", "seq"]) for name in ("input_ids", "attention_mask"))
    graph.output.append(value("embedding", TensorProto.FLOAT, ["batch", width]))
    onnx.save(model, str(directory / MODEL_FILE), save_as_external_data=True, location=DATA_FILE)
    return int(width)


def _pooling(pooling: Pooling) -> list[onnx.NodeProto]:
    if pooling == "cls":
        pooled = [make_node("Gather", [STATES, "pool.first"], ["pooled"], axis=1)]
    else:
        pooled = [
            make_node("Cast", ["attention_mask"], ["pool.mask"], to=TensorProto.FLOAT),
            make_node("Unsqueeze", ["pool.mask", "pool.width"], ["pool.weights"]),
            make_node("Mul", [STATES, "pool.weights"], ["pool.states"]),
            make_node("ReduceSum", ["pool.states", "pool.sequence"], ["pool.sum"], keepdims=0),
            make_node("ReduceSum", ["pool.weights", "pool.sequence"], ["pool.count"], keepdims=0),
            make_node("Div", ["pool.sum", "pool.count"], ["pooled"]),
        ]
    return [
        *pooled,
        make_node("ReduceL2", ["pooled", "pool.width"], ["pool.length"], keepdims=1),
        make_node("Div", ["pooled", "pool.length"], ["embedding"]),
    ]
