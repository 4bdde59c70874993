"""Runs the graph of a causal language model over the slots of its KV cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from backends.onnx.adapter import BASE, Adapter
from backends.onnx.kv_cache import KvCache
from backends.onnx.shared_session import SharedSession

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding, OrtValue

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]


class Executor(Protocol):
    """What the scheduler needs of a model. One thread calls it.

    slots: sequences it can hold. length: tokens per slot. blocks: how many blocks of `prefix_cache.BLOCK` tokens it
    can keep beside the slots. Returned logits are the caller's to overwrite and last until the next call.
    """

    slots: int
    length: int
    blocks: int

    def prefill(self, slot: int, ids: Ids, past: int, *, rows: int) -> Logits:
        """Append `ids`, int64 [n], to the `past` tokens of the slot; float32 [rows, vocab] after each of the last
        `rows` ids, 0 <= rows <= n."""

    def decode(self, first: int, ids: Ids, past: Ids) -> Logits:
        """Append one token each to the slots from `first` on: `ids` and `past` int64 [n]; float32 [n, vocab]."""

    def move(self, source: int, target: int, length: int) -> None:
        """Make the slot `target` hold the first `length` tokens of `source`."""

    def release(self, slot: int) -> None:
        """Give the memory of an unused slot back."""

    def save(self, slot: int, position: int, block: int) -> None:
        """Keep the tokens `position .. position + BLOCK - 1` of the slot in a block."""

    def load(self, block: int, slot: int, position: int) -> None:
        """Put a block's tokens into the slot at `position`."""


@dataclass(slots=True)
class _DecodeRun:
    """A binding and the arrays behind its bare addresses: one that was dropped while bound is a segfault."""

    binding: IOBinding
    ids: Ids
    seqlens: NDArray[np.int32]
    total: NDArray[np.int32]
    rows: Ids
    logits: Logits


class OnnxExecutor:
    """Executor on an ONNX Runtime session.

    The graph's inputs, as `convert/decoder_graph.py` makes them: input_ids int64 [batch, seq], seqlens_k int32 [batch]
    (tokens in the cache after the run, less one), total_len int32 [] (the largest of these lengths), logit_rows int64
    [rows] (rows of the flattened [batch * seq] for which logits are wanted), past.i.k and past.i.v, with present.i.*
    at the same address. Prefill and decode are runs of their own: mixed in one run int8 activations round
    differently, and a sequence would answer differently beside others than alone.
    """

    def __init__(
        self, session: InferenceSession | SharedSession, cache: KvCache, vocab: int, adapter: Adapter = BASE
    ) -> None:
        """adapter: what the session runs with here; it must have room for it."""
        self.slots = cache.layout.slots
        self.length = cache.layout.length
        self._shared = session if isinstance(session, SharedSession) else SharedSession(session)
        self._adapter = adapter
        self._adapter_values: dict[str, OrtValue] | None = None
        self._cache = cache
        self._vocab = vocab
        self._decode_runs: dict[tuple[int, int], _DecodeRun] = {}
        self._prefill_bindings: dict[int, IOBinding] = {}
        self._prefill_logits = np.empty((1, vocab), np.float32)
        self.blocks = cache.blocks
        self._shared.join(self)

    def prefill(self, slot: int, ids: Ids, past: int, *, rows: int) -> Logits:
        with self._shared.lock:
            return self._prefill(slot, ids, past, rows)

    def decode(self, first: int, ids: Ids, past: Ids) -> Logits:
        with self._shared.lock:
            return self._decode(first, ids, past)

    def forget(self) -> None:
        """Drop what is bound to a session that another replaces."""
        self._decode_runs.clear()
        self._prefill_bindings.clear()
        self._adapter_values = None

    def _prefill(self, slot: int, ids: Ids, past: int, rows: int) -> Logits:
        binding = self._prefill_bindings.get(slot)
        if binding is None:
            binding = self._prefill_bindings[slot] = self._bind_cache(slot, 1)
        if rows > len(self._prefill_logits):
            self._prefill_logits = np.empty((rows, self._vocab), np.float32)
        count, computed = len(ids), max(1, rows)
        logits = self._prefill_logits[:computed]
        self._bind_output(binding, logits)
        # One row is computed even when none is wanted: 0.6 ms against the 50 of a chunk, and no graph has to take
        # zero rows.
        inputs = {
            "input_ids": np.ascontiguousarray(ids, np.int64).reshape(1, count),
            "seqlens_k": np.array([past + count - 1], np.int32),
            "total_len": np.array(past + count, np.int32),
            "logit_rows": np.arange(count - computed, count, dtype=np.int64),
        }
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        self._shared.session.run_with_iobinding(binding)
        return logits[:rows]

    def _decode(self, first: int, ids: Ids, past: Ids) -> Logits:
        count = len(ids)
        run = self._decode_runs.get((first, count))
        if run is None:
            run = self._decode_runs[first, count] = self._decode_run(first, count)
        run.ids[:, 0] = ids
        run.seqlens[:] = past
        run.total[...] = past.max() + 1
        if self._cache.device != "cpu":
            self._bind_inputs(run)  # inputs were copied to the device when they were bound
        self._shared.session.run_with_iobinding(run.binding)
        return run.logits

    def move(self, source: int, target: int, length: int) -> None:
        self._cache.copy(source, target, length)

    def release(self, slot: int) -> None:
        self._cache.release(slot)

    def save(self, slot: int, position: int, block: int) -> None:
        self._cache.save(slot, position, block)

    def load(self, block: int, slot: int, position: int) -> None:
        self._cache.load(block, slot, position)

    def _decode_run(self, first: int, count: int) -> _DecodeRun:
        run = _DecodeRun(
            binding=self._bind_cache(first, count),
            ids=np.zeros((count, 1), np.int64),
            seqlens=np.zeros(count, np.int32),
            total=np.zeros((), np.int32),
            rows=np.arange(count, dtype=np.int64),
            logits=np.empty((count, self._vocab), np.float32),
        )
        self._bind_inputs(run)
        self._bind_output(run.binding, run.logits)
        return run

    def _bind_cache(self, first: int, count: int) -> IOBinding:
        """A binding whose past and present are the slots `first .. first + count - 1`."""
        binding, layout = self._shared.session.io_binding(), self._cache.layout
        shape, dtype, device = layout.shape(count), layout.dtype.type, self._cache.device
        for part in range(layout.parts):
            name = f"{part // 2}.{'kv'[part % 2]}"
            address = self._cache.pointer(part, first)
            binding.bind_input(f"past.{name}", device, 0, dtype, shape, address)
            binding.bind_output(f"present.{name}", device, 0, dtype, shape, address)
        if self._adapter_values is None:
            from onnxruntime import OrtValue

            inputs = self._shared.inputs(self._adapter)
            self._adapter_values = {name: OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
        for name, value in self._adapter_values.items():
            binding.bind_ortvalue_input(name, value)
        return binding

    def _bind_inputs(self, run: _DecodeRun) -> None:
        arrays: dict[str, NDArray[Any]] = {
            "input_ids": run.ids,
            "seqlens_k": run.seqlens,
            "total_len": run.total,
            "logit_rows": run.rows,
        }
        for name, array in arrays.items():
            run.binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _bind_output(self, binding: IOBinding, logits: Logits) -> None:
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
