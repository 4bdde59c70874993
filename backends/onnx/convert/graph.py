"""An ONNX graph under construction, with its weights streamed to a data file beside it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
IR_VERSION = 10
MICROSOFT = "com.microsoft"
INLINE_BELOW = 1024
"""Bytes below which a constant stays in the graph, where shape inference can see it."""
ALIGNMENT = 4096
"""Page-aligned weights can be mapped instead of read."""


class GraphBuilder:
    """Collects nodes, constants, inputs and outputs, then writes `model` with its weights in `data`.

    Every constant goes to disk as it is added, so no more than one weight is in memory. Use as a context manager and
    call `save` inside.
    """

    def __init__(self, model: Path, data: Path) -> None:
        self._model_path = model
        self._data_name = data.name
        self._data: BinaryIO = data.open("xb")
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._data.close()

    def input(self, name: str, dtype: Any, shape: list[int | str]) -> str:
        """Declare a graph input; a string in `shape` names a free dimension."""
        self._inputs.append(_value(name, dtype, shape))
        return name

    def output(self, name: str, dtype: Any, shape: list[int | str]) -> None:
        """Declare the graph output `name`, which a node must produce."""
        self._outputs.append(_value(name, dtype, shape))

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Add a weight or a shape under `name`."""
        array = np.asarray(array, order="C")  # `ascontiguousarray` would make a list of a single number
        if array.nbytes < INLINE_BELOW:
            self._constants.append(numpy_helper.from_array(array, name))
            return name
        offset = -(-self._data.tell() // ALIGNMENT) * ALIGNMENT
        self._data.seek(offset)
        array.tofile(self._data)
        tensor = TensorProto(name=name, data_type=_dtype(array.dtype), dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self._data_name), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self._constants.append(tensor)
        return name

    def reshaped(self, name: str, of: str, shape: list[int]) -> str:
        """Add a constant with the bytes of the constant `of`, in another shape: the data file holds them once."""
        original = next(tensor for tensor in self._constants if tensor.name == of)
        tensor = TensorProto()
        tensor.CopyFrom(original)
        tensor.name = name
        tensor.dims[:] = shape
        self._constants.append(tensor)
        return name

    def node(self, op: str, inputs: list[str], *, domain: str = "", output: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name; an empty input is an omitted one."""
        return self.nodes(op, inputs, [output or f"{op}_{len(self._nodes)}"], domain=domain, **attributes)[0]

    def nodes(
        self, op: str, inputs: list[str], outputs: list[str], *, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with the named outputs; an empty output is an omitted one."""
        name = f"{op}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs

    def save(self, name: str) -> None:
        """Write the graph as `name`; the builder is finished after this."""
        self._data.flush()
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="onnxstack")
        self._model_path.write_bytes(model.SerializeToString())


def _dtype(dtype: Any) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _value(name: str, dtype: Any, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _dtype(dtype), shape)
