"""LoRA adapters: small matrices beside those of a base model, fed into its graph as inputs.

A graph gets, at every matrix that an adapter changes, the product of two more (Hu et al., "LoRA: Low-Rank Adaptation of
Large Language Models", arXiv:2106.09685): y = x W + (x A) B. A and B are inputs of the run, so one session holds the
weights of the base for all its adapters; the base itself runs with matrices of rank 0, which add zeros.

How a product of float32 is rounded must depend neither on how many rows it has (answers are the same alone and in any
batch) nor on how work is shared among threads. ONNX Runtime's kernel takes another path for a single row only where its
factor is 1, and sums in another order only where more than `GROUP` columns are asked for (measured on 1.32, x86-64). So
the products have the factors 2 and 1/2, which are exact, and A is cut into groups of columns.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.errors import CorruptModel, Unsupported

ADAPTER_FILE = "adapter.npz"
GROUP = 16
"""Columns of A that are multiplied at once."""
MAX_RANK = 512
"""Of one matrix of the graph, which may be several of the model stacked."""
KINDS = ("qkv", "o", "gate_up", "down")
"""The matrices of a layer, as `convert/decoder_graph.py` names them."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Adapter:
    """By the name of a matrix, `{layer}.{kind}`: A, float32 [inputs, rank], and B, float32 [rank, outputs], scaled."""

    factors: Mapping[str, tuple[Float32, Float32]]

    @property
    def groups(self) -> dict[str, int]:
        """How many groups of columns each matrix needs."""
        return {name: -(-a.shape[1] // GROUP) for name, (a, _) in self.factors.items()}

    def save(self, file: Path) -> None:
        """Write what `read_adapter` reads."""
        arrays: dict[str, Any] = {}
        for name, (a, b) in self.factors.items():
            arrays |= {f"{name}.a": a, f"{name}.b": b}
        np.savez(file, **arrays)


BASE = Adapter({})
"""Changes nothing."""


def read_adapter(directory: Path) -> Adapter:
    """The adapter in a model directory. Raises CorruptModel."""
    try:
        with np.load(directory / ADAPTER_FILE, allow_pickle=False) as arrays:
            names = [name.removesuffix(".a") for name in arrays.files if name.endswith(".a")]
            factors = {name: (arrays[f"{name}.a"], arrays[f"{name}.b"]) for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptModel(ADAPTER_FILE, "cannot be read as arrays") from error
    for a, b in factors.values():
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != len(b) or (a.dtype, b.dtype) != (np.float32, np.float32):
            raise CorruptModel(ADAPTER_FILE, "its matrices do not fit each other")
    return Adapter(factors)


def matrices(graph_file: Path) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of the matrices of a decoder's graph that an adapter can change."""
    return {name: sizes for name, (_, sizes) in _products(load_graph(graph_file)).items()}


def add_adapters(model: Any, groups: Mapping[str, int]) -> None:
    """Give a decoder's graph, an onnx.ModelProto, inputs for so many groups at each of these matrices.

    Raises:
        Unsupported: the graph has no such matrix.
    """
    from onnx import TensorProto, helper

    products = _products(model)
    behind: dict[str, list[Any]] = {}
    for name, count in groups.items():
        if name not in products:
            raise Unsupported(f"the base model's graph has no matrix {name} that an adapter could change")
        node, (inputs, outputs) = products[name]
        plain, result = f"adapter.{name}.plain", node.output[0]
        node.output[0] = plain
        parts = []
        added = behind.setdefault(node.name, [])
        for group in range(count):
            model.graph.input.append(
                helper.make_tensor_value_info(
                    f"adapter.{name}.a{group}", TensorProto.FLOAT, [inputs, f"adapter.{name}.rank{group}"]
                )
            )
            parts.append(f"adapter.{name}.low{group}")
            added.append(_product([node.input[0], f"adapter.{name}.a{group}"], parts[-1], 2.0))
        model.graph.input.append(
            helper.make_tensor_value_info(f"adapter.{name}.b", TensorProto.FLOAT, [f"adapter.{name}.rank", outputs])
        )
        low = parts[0]
        if count > 1:
            low = f"adapter.{name}.low"
            added.append(helper.make_node("Concat", parts, [low], axis=-1))
        added.append(_product([low, f"adapter.{name}.b"], f"adapter.{name}.change", 0.5))
        added.append(helper.make_node("Add", [plain, f"adapter.{name}.change"], [result]))
    nodes = [n for node in model.graph.node for n in (node, *behind.get(node.name, ()))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def adapter_inputs(adapter: Adapter, groups: Mapping[str, int], sizes: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """What the inputs of `add_adapters` are for this adapter; rank 0 where it changes nothing."""
    feeds: dict[str, Any] = {}
    for name, count in groups.items():
        inputs, outputs = sizes[name]
        a, b = adapter.factors.get(name, (np.empty((inputs, 0), np.float32), np.empty((0, outputs), np.float32)))
        for group in range(count):
            feeds[f"adapter.{name}.a{group}"] = np.ascontiguousarray(a[:, group * GROUP : (group + 1) * GROUP])
        feeds[f"adapter.{name}.b"] = np.ascontiguousarray(b)
    return feeds


def load_graph(graph_file: Path) -> Any:
    """The onnx.ModelProto without its weights, which stay in the file beside it."""
    import onnx

    return onnx.load(str(graph_file), load_external_data=False)


def _product(inputs: list[str], output: str, factor: float) -> Any:
    from onnx import helper

    return helper.make_node("FusedMatMul", inputs, [output], domain="com.microsoft", alpha=factor)


def _products(model: Any) -> dict[str, tuple[Any, tuple[int, int]]]:
    """By the matrix's name the node that multiplies by it, and its inputs and outputs."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type not in ("MatMulNBits", "MatMul") or len(node.input) < 2:
            continue
        name, _, suffix = node.input[1].rpartition(".")
        layer, _, kind = name.partition(".")
        if not layer.isdecimal() or kind not in KINDS or suffix not in ("q", "w"):
            continue
        sizes = {attribute.name: attribute.i for attribute in node.attribute}
        shape = (sizes["K"], sizes["N"]) if suffix == "q" else shapes[node.input[1]]
        found[name] = (node, (int(shape[0]), int(shape[1])))
    return found
