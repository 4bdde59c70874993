"""LoRA adapters: small matrices beside those of a base model, fed into its graph as inputs.

A graph gets, at every matrix that an adapter changes, the product of two more (Hu et al., "LoRA: Low-Rank Adaptation of
Large Language Models", arXiv:2106.09685): y = x W + (x A) B. A and B are inputs of the run. Sequences of several
adapters and of the base share a run: the columns of A and rows of B of all these adapters stand beside each other, and
of x A each row keeps the columns of its own adapter, those of others being replaced by zeros, which add nothing.

How a product of float32 is rounded must depend neither on how many rows it has (answers are the same alone and in any
batch), nor on which adapters stand beside it, nor on how work is shared among threads. ONNX Runtime's kernel takes
another path for a single row only where its factor is 1, and sums in another order only where more than `GROUP` columns
are asked for or more than `MIXED` are summed (measured on 1.32, x86-64). So the products have the factors 2 and 1/2,
which are exact, A is cut into groups of columns, and adapters of more columns together share no run.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.errors import CorruptModel, Unsupported

ADAPTER_FILE = "adapter.npz"
GROUP = 16
"""Columns of A that are multiplied at once."""
MIXED = 128
"""Columns of all adapters of a run together, at one matrix."""
MAX_RANK = 512
"""Of one matrix of the graph, which may be several of the model stacked."""
KINDS = ("qkv", "o", "gate_up", "down")
"""The matrices of a layer, as `convert/decoder_graph.py` names them."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Adapter:
    """By the name of a matrix, `{layer}.{kind}`: A, float32 [inputs, rank], and B, float32 [rank, outputs], scaled."""

    factors: Mapping[str, tuple[Float32, Float32]]

    @property
    def columns(self) -> dict[str, int]:
        """Columns of A by kind of matrix: the most of any layer, to which others are filled up with zeros."""
        found: dict[str, int] = {}
        for name, (a, _) in self.factors.items():
            found[kind_of(name)] = max(found.get(kind_of(name), 0), a.shape[1])
        return found

    def at(self, name: str, inputs: int, outputs: int) -> tuple[Float32, Float32]:
        """A and B at a matrix, with all columns of its kind."""
        columns = self.columns.get(kind_of(name), 0)
        a, b = self.factors.get(name, (np.empty((inputs, 0), np.float32), np.empty((0, outputs), np.float32)))
        more = columns - a.shape[1]
        if not more:
            return a, b
        return np.pad(a, ((0, 0), (0, more))), np.pad(b, ((0, more), (0, 0)))

    def save(self, file: Path) -> None:
        """Write what `read_adapter` reads."""
        arrays: dict[str, Any] = {}
        for name, (a, b) in self.factors.items():
            arrays |= {f"{name}.a": a, f"{name}.b": b}
        np.savez(file, **arrays)


@dataclass(frozen=True, slots=True)
class Room:
    """What a graph takes of adapters. names: the matrices. groups: of columns, by kind of matrix."""

    names: frozenset[str] = frozenset()
    groups: Mapping[str, int] = field(default_factory=dict)

    def joined(self, other: Room) -> Room:
        """Room for what either has room for."""
        kinds = sorted({*self.groups, *other.groups})
        groups = {kind: max(self.groups.get(kind, 0), other.groups.get(kind, 0)) for kind in kinds}
        return Room(self.names | other.names, groups)

    def fits(self, adapters: Sequence[Adapter]) -> bool:
        """Whether the adapters can share a run; one alone always can, if the room was made for it."""
        if len(adapters) == 1:
            return True
        columns, groups = _totals(adapters)
        return all(columns[k] <= MIXED and groups[k] <= self.groups.get(k, 0) for k in columns)


def room_for(adapters: Sequence[Adapter]) -> Room:
    """Room for each of the adapters, and for as many of them together as may share a run."""
    _, together = _totals(adapters)
    largest = {kind: max(_groups(a.columns.get(kind, 0)) for a in adapters) for kind in together}
    groups = {kind: max(largest[kind], min(together[kind], MIXED // GROUP)) for kind in sorted(together)}
    return Room(frozenset(name for adapter in adapters for name in adapter.factors), groups)


def _totals(adapters: Iterable[Adapter]) -> tuple[dict[str, int], dict[str, int]]:
    """Columns and groups of all together, by kind of matrix."""
    columns: dict[str, int] = {}
    groups: dict[str, int] = {}
    for adapter in adapters:
        for kind, count in adapter.columns.items():
            columns[kind] = columns.get(kind, 0) + count
            groups[kind] = groups.get(kind, 0) + _groups(count)
    return columns, groups


def _groups(columns: int) -> int:
    return -(-columns // GROUP)


def kind_of(name: str) -> str:
    """Which of `KINDS` a matrix is."""
    return name.partition(".")[2]


def read_adapter(directory: Path) -> Adapter:
    """The adapter in a model directory. Raises CorruptModel."""
    try:
        with np.load(directory / ADAPTER_FILE, allow_pickle=False) as arrays:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in arrays.zip.infolist()):
                raise CorruptModel(ADAPTER_FILE, "holds compressed arrays, which may be of any size")
            names = [name.removesuffix(".a") for name in arrays.files if name.endswith(".a")]
            factors = {name: (arrays[f"{name}.a"], arrays[f"{name}.b"]) for name in names}
    except (OSError, ValueError, KeyError, EOFError, MemoryError, AttributeError, zipfile.BadZipFile) as error:
        raise CorruptModel(ADAPTER_FILE, "cannot be read as arrays") from error
    for a, b in factors.values():
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != len(b) or (a.dtype, b.dtype) != (np.float32, np.float32):
            raise CorruptModel(ADAPTER_FILE, "its matrices do not fit each other")
        if not (np.isfinite(a).all() and np.isfinite(b).all()):  # they would reach the rows of others in a run
            raise CorruptModel(ADAPTER_FILE, "holds numbers that are not finite")
    return Adapter(factors)


def matrices(graph_file: Path) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of the matrices of a decoder's graph that an adapter can change."""
    return {name: sizes for name, (_, sizes) in _products(load_graph(graph_file)).items()}


def add_adapters(model: Any, room: Room) -> None:
    """Give a decoder's graph, an onnx.ModelProto, inputs for adapters; `AdapterBatch` fills them.

    Raises:
        Unsupported: the graph has no such matrix.
    """
    from onnx import TensorProto, helper, numpy_helper

    def add_input(name: str, kind: int, shape: list[int | str]) -> str:
        model.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    products = _products(model)
    behind: dict[str, list[Any]] = {}
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "adapter.none"))
    masks = {
        kind: add_input(f"adapter.{kind}.own", TensorProto.BOOL, ["batch", 1, f"adapter.{kind}.columns"])
        for kind in room.groups
    }
    for name in sorted(room.names):
        if name not in products:
            raise Unsupported(f"the base model's graph has no matrix {name} that an adapter could change")
        node, (inputs, outputs) = products[name]
        prefix, result = f"adapter.{name}", node.output[0]
        node.output[0] = f"{prefix}.plain"
        added = behind.setdefault(node.name, [])
        parts = [f"{prefix}.low{group}" for group in range(room.groups[kind_of(name)])]
        for group, part in enumerate(parts):
            a = add_input(f"{prefix}.a{group}", TensorProto.FLOAT, [inputs, f"{prefix}.columns{group}"])
            added.append(_product([node.input[0], a], part, 2.0))
        b = add_input(f"{prefix}.b", TensorProto.FLOAT, [f"{prefix}.columns", outputs])
        low, own, change = parts[0], f"{prefix}.own", f"{prefix}.change"
        if len(parts) > 1:
            low = f"{prefix}.low"
            added.append(helper.make_node("Concat", parts, [low], axis=-1))
        # No product with zeros: whatever another adapter makes of a row, it must not reach it.
        added.append(helper.make_node("Where", [masks[kind_of(name)], low, "adapter.none"], [own]))
        added.append(_product([own, b], change, 0.5))
        added.append(helper.make_node("Add", [f"{prefix}.plain", change], [result]))
    nodes = [n for node in model.graph.node for n in (node, *behind.get(node.name, ()))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


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
