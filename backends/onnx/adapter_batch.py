"""The adapters that share a run, as inputs of a graph that `add_adapters` made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backends.onnx.adapter import GROUP, Adapter, Float32, Room, kind_of

if TYPE_CHECKING:
    from onnxruntime import OrtValue

Sizes = Mapping[str, tuple[int, int]]
"""Inputs and outputs of each matrix."""
Mask = NDArray[np.bool_]


class AdapterFactors:
    """What one adapter is at each matrix of a graph: the groups of columns of A, which runs share, and B."""

    def __init__(self, adapter: Adapter, names: Sequence[str], sizes: Sizes) -> None:
        from onnxruntime import OrtValue

        self.a: dict[str, list[OrtValue]] = {}
        self.b: dict[str, Float32] = {}
        for name in names:
            a, self.b[name] = adapter.at(name, *sizes[name])
            groups = [a[:, first : first + GROUP] for first in range(0, a.shape[1], GROUP)]
            self.a[name] = [OrtValue.ortvalue_from_numpy(np.ascontiguousarray(group)) for group in groups]


class AdapterBatch:
    """The inputs of the graph for some adapters, but for the masks.

    values: by input. owners: by kind of matrix, which adapter each column is of, int64 [columns].
    """

    def __init__(
        self, adapters: Sequence[Adapter], factors: Sequence[AdapterFactors], room: Room, sizes: Sizes
    ) -> None:
        from onnxruntime import OrtValue

        self.adapters = tuple(adapters)
        self.owners = {
            kind: np.repeat(np.arange(len(adapters)), [adapter.columns.get(kind, 0) for adapter in adapters])
            for kind in room.groups
        }
        self.values: dict[str, OrtValue] = {}
        for name in room.names:
            inputs, _ = sizes[name]
            groups = [group for each in factors for group in each.a[name]]
            empty = OrtValue.ortvalue_from_numpy(np.empty((inputs, 0), np.float32))
            for number in range(room.groups[kind_of(name)]):
                self.values[f"adapter.{name}.a{number}"] = groups[number] if number < len(groups) else empty
            b = np.concatenate([each.b[name] for each in factors])
            self.values[f"adapter.{name}.b"] = OrtValue.ortvalue_from_numpy(b)

    def masks(self, rows: Sequence[Adapter | None]) -> dict[str, Mask]:
        """By input, bool [rows, 1, columns]: the columns of each row's adapter; None is the base."""
        numbers = np.array([-1 if row is None else self.adapters.index(row) for row in rows])
        return {f"adapter.{kind}.own": numbers[:, None, None] == owners for kind, owners in self.owners.items()}
