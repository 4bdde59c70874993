"""The largest logits of each row, found in the graph: what a device need not send of the others.

A row of logits has a number for each token of the vocabulary; greedy answers and samples among the k largest need few
of them. On the CPU numpy finds them faster (0.7 ms against 1.6 for 16 rows), so only devices run this. Untried on a
GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.onnx.sampling import TOP

VALUES, TOKENS = "top.values", "top.tokens"


def add_top_k(model: Any) -> None:
    """Give a decoder's graph, an onnx.ModelProto, two more outputs [rows, k]: the largest logits, float32, and their
    tokens, int64, largest first; k is `TOP`, or all where the vocabulary is smaller."""
    from onnx import TensorProto, helper, numpy_helper

    (logits,) = (output for output in model.graph.output if output.name == "logits")
    rows, vocab = logits.type.tensor_type.shape.dim
    k = min(TOP, vocab.dim_value)
    model.graph.initializer.append(numpy_helper.from_array(np.array([k], np.int64), "top.k"))
    model.graph.node.append(helper.make_node("TopK", ["logits", "top.k"], [VALUES, TOKENS], axis=-1, sorted=1))
    for name, kind in ((VALUES, TensorProto.FLOAT), (TOKENS, TensorProto.INT64)):
        model.graph.output.append(helper.make_tensor_value_info(name, kind, [rows.dim_param, k]))


class TopRows:
    """Rows of logits of which only the largest are known, the others being -inf.

    values: float32 [rows, k], tokens: int64 [rows, k]: where the graph writes them.
    """

    def __init__(self, rows: int, vocab: int) -> None:
        k = min(TOP, vocab)
        self.values = np.empty((rows, k), np.float32)
        self.tokens = np.zeros((rows, k), np.int64)
        self._before = np.zeros((rows, k), np.int64)
        self._logits = np.full((rows, vocab), -np.inf, np.float32)

    def logits(self) -> NDArray[np.float32]:
        """The rows after a run, float32 [rows, vocab]; they last until the next one."""
        np.put_along_axis(self._logits, self._before, -np.inf, axis=1)
        np.put_along_axis(self._logits, self.tokens, self.values, axis=1)
        self._before[:] = self.tokens
        return self._logits
