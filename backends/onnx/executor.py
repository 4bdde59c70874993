"""Runs the graph of a causal language model over the slots of its KV cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from backends.onnx.adapter import Adapter
from backends.onnx.adapter_batch import AdapterBatch, AdapterFactors, Mask, Sizes
from backends.onnx.kv_cache import KvCache
from backends.onnx.shared_session import SharedSession
from backends.onnx.top_k import TOKENS, VALUES, TopRows

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding

K = TypeVar("K")
V = TypeVar("V")
Ids = NDArray[np.int64]
Logits = NDArray[np.float32]
BATCHES, BINDINGS = 16, 64
"""Sets of adapters whose factors are kept beside each other, and runs that are kept bound."""


class Executor(Protocol):
    """What the scheduler needs of a model. One thread calls it.

    slots: sequences it can hold. length: tokens per slot. blocks: how many blocks of `prefix_cache.BLOCK` tokens it
    can keep beside the slots. token_bytes: of KV of one token. Returned logits are the caller's to overwrite and last
    until the next call.
    """

    slots: int
    length: int
    blocks: int
    token_bytes: int

    def begin(self, slot: int, adapter: Adapter | None) -> None:
        """What follows in the slot is of a sequence that runs with this adapter; None is the model itself."""

    def prefill(self, slot: int, ids: Ids, past: int, *, rows: int, top: bool = False) -> Logits:
        """Append `ids`, int64 [n], to the `past` tokens of the slot; float32 [rows, vocab] after each of the last
        `rows` ids, 0 <= rows <= n. top: the `sampling.TOP` largest of each row suffice; others may be -inf."""

    def decode(self, first: int, ids: Ids, past: Ids, *, top: bool = False) -> Logits:
        """Append one token each to the slots from `first` on: `ids` and `past` int64 [n]; float32 [n, vocab]. top: as
        for `prefill`."""

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

    session: InferenceSession
    binding: IOBinding
    ids: Ids
    seqlens: NDArray[np.int32]
    total: NDArray[np.int32]
    rows: Ids
    logits: Logits
    batch: AdapterBatch | None
    masks: Mapping[str, Mask] = field(default_factory=dict)
    known: TopRows | None = None


@dataclass(slots=True)
class _PrefillBinding:
    session: InferenceSession
    binding: IOBinding
    batch: AdapterBatch | None
    masks: Mapping[str, Mask]
    known: TopRows | None = None


class OnnxExecutor:
    """Executor on ONNX Runtime sessions.

    The graph's inputs, as `convert/decoder_graph.py` makes them: input_ids int64 [batch, seq], seqlens_k int32 [batch]
    (tokens in the cache after the run, less one), total_len int32 [] (the largest of these lengths), logit_rows int64
    [rows] (rows of the flattened [batch * seq] for which logits are wanted), past.i.k and past.i.v, with present.i.*
    at the same address. Prefill and decode are runs of their own: mixed in one run int8 activations round
    differently, and a sequence would answer differently beside others than alone.

    A run in which no sequence has an adapter is one of the plain graph, so that adapters cost the base nothing. Others
    run together as far as their adapters fit a run, in the order of their slots.
    """

    def __init__(
        self,
        session: InferenceSession | SharedSession,
        cache: KvCache,
        vocab: int,
        sizes: Sizes | None = None,
        *,
        top: bool = False,
    ) -> None:
        """sizes: of the matrices that adapters can change. top: whether `add_top_k` has changed the graph; logits then
        stay on the device where the largest suffice."""
        self.slots = cache.layout.slots
        self.length = cache.layout.length
        self.blocks = cache.blocks
        self.token_bytes = cache.layout.token_bytes
        self._shared = session if isinstance(session, SharedSession) else SharedSession(session)
        self._sizes: Sizes = sizes or {}
        self._cache = cache
        self._vocab = vocab
        self._top = top
        self._adapters: list[Adapter | None] = [None] * self.slots
        """By slot."""
        self._factors: dict[Adapter, AdapterFactors] = {}
        self._batches: OrderedDict[tuple[Adapter, ...], AdapterBatch] = OrderedDict()
        self._decode_runs: OrderedDict[tuple[int, int, AdapterBatch | None, bool], _DecodeRun] = OrderedDict()
        self._decode_logits = np.empty((self.slots, vocab), np.float32)
        self._prefill_bindings: OrderedDict[tuple[int, Adapter | None, bool], _PrefillBinding] = OrderedDict()
        self._prefill_logits = np.empty((1, vocab), np.float32)
        self._shared.join(self)

    def begin(self, slot: int, adapter: Adapter | None) -> None:
        self._adapters[slot] = adapter

    def prefill(self, slot: int, ids: Ids, past: int, *, rows: int, top: bool = False) -> Logits:
        with self._shared.lock:
            return self._prefill(slot, ids, past, rows, top and self._top)

    def decode(self, first: int, ids: Ids, past: Ids, *, top: bool = False) -> Logits:
        with self._shared.lock:
            return self._decode(first, ids, past, top and self._top)

    def forget(self) -> None:
        """Drop what is bound to a session that another replaces, or to an adapter that has gone."""
        self._decode_runs.clear()
        self._prefill_bindings.clear()
        self._batches.clear()
        self._factors.clear()

    def _prefill(self, slot: int, ids: Ids, past: int, rows: int, top: bool) -> Logits:
        key = (slot, self._adapters[slot], top)
        bound = self._prefill_bindings.get(key)
        if bound is None:
            bound = _keep(self._prefill_bindings, key, self._bind_prefill(slot), BINDINGS)
        if rows > len(self._prefill_logits):
            self._prefill_logits = np.empty((rows, self._vocab), np.float32)
        count, computed = len(ids), max(1, rows)
        logits = self._prefill_logits[:computed]
        bound.known = self._bind_output(bound.binding, logits, top)
        # One row is computed even when none is wanted: 0.6 ms against the 50 of a chunk, and no graph has to take
        # zero rows.
        inputs = {
            "input_ids": np.ascontiguousarray(ids, np.int64).reshape(1, count),
            "seqlens_k": np.array([past + count - 1], np.int32),
            "total_len": np.array(past + count, np.int32),
            "logit_rows": np.arange(count - computed, count, dtype=np.int64),
        }
        for name, array in inputs.items():
            bound.binding.bind_cpu_input(name, array)
        bound.session.run_with_iobinding(bound.binding)
        return (logits if bound.known is None else bound.known.logits())[:rows]

    def _decode(self, first: int, ids: Ids, past: Ids, top: bool) -> Logits:
        begun = 0
        for end, batch in self._runs(self._adapters[first : first + len(ids)]):
            self._decode_rows(first + begun, ids[begun:end], past[begun:end], batch, top)
            begun = end
        return self._decode_logits[first : first + len(ids)]

    def _runs(self, rows: Sequence[Adapter | None]) -> list[tuple[int, AdapterBatch | None]]:
        """Where each run over the rows ends, and with which adapters it is."""
        if not any(rows):
            return [(len(rows), None)]
        runs: list[tuple[int, AdapterBatch | None]] = []
        together: list[Adapter] = []
        for row, adapter in enumerate(rows):
            if adapter is None or adapter in together:
                continue
            if together and not self._shared.room.fits([*together, adapter]):
                runs.append((row, self._batch(together)))
                together = []
            together.append(adapter)
        return [*runs, (len(rows), self._batch(together))]

    def _batch(self, adapters: Sequence[Adapter]) -> AdapterBatch:
        """The adapters as inputs, in the order in which they were loaded, so that a set is one batch in any order."""
        key = tuple(adapter for adapter in self._shared.adapters if adapter in adapters)
        batch = self._batches.get(key)
        if batch is not None:
            self._batches.move_to_end(key)
            return batch
        room = self._shared.room
        for adapter in key:
            if adapter not in self._factors:
                self._factors[adapter] = AdapterFactors(adapter, sorted(room.names), self._sizes)
        while len(self._batches) >= BATCHES:
            self._unbind(self._batches.popitem(last=False)[1])
        batch = AdapterBatch(key, [self._factors[adapter] for adapter in key], room, self._sizes)
        self._batches[key] = batch
        return batch

    def _unbind(self, batch: AdapterBatch) -> None:
        """Let go of the factors that runs have bound."""
        everything: tuple[OrderedDict[Any, Any], ...] = (self._decode_runs, self._prefill_bindings)
        for kept in everything:
            for key in [key for key, run in kept.items() if run.batch is batch]:
                del kept[key]

    def _decode_rows(self, first: int, ids: Ids, past: Ids, batch: AdapterBatch | None, top: bool) -> None:
        count = len(ids)
        key = first, count, batch, top
        run = self._decode_runs.get(key)
        if run is None:
            run = _keep(self._decode_runs, key, self._decode_run(*key), BINDINGS)
        run.ids[:, 0] = ids
        run.seqlens[:] = past
        run.total[...] = past.max() + 1
        if batch is not None:
            for name, mask in batch.masks(self._adapters[first : first + count]).items():
                run.masks[name][:] = mask
        if self._cache.device != "cpu":
            self._bind_inputs(run)  # inputs were copied to the device when they were bound
        run.session.run_with_iobinding(run.binding)
        if run.known is not None:
            run.logits[:] = run.known.logits()

    def move(self, source: int, target: int, length: int) -> None:
        self._cache.copy(source, target, length)
        self._adapters[target] = self._adapters[source]

    def release(self, slot: int) -> None:
        self._cache.release(slot)

    def save(self, slot: int, position: int, block: int) -> None:
        self._cache.save(slot, position, block)

    def load(self, block: int, slot: int, position: int) -> None:
        self._cache.load(block, slot, position)

    def _decode_run(self, first: int, count: int, batch: AdapterBatch | None, top: bool) -> _DecodeRun:
        session, binding = self._bind(first, count, batch)
        run = _DecodeRun(
            session=session,
            binding=binding,
            ids=np.zeros((count, 1), np.int64),
            seqlens=np.zeros(count, np.int32),
            total=np.zeros((), np.int32),
            rows=np.arange(count, dtype=np.int64),
            logits=self._decode_logits[first : first + count],
            batch=batch,
            masks={} if batch is None else batch.masks([None] * count),
        )
        self._bind_inputs(run)
        run.known = self._bind_output(run.binding, run.logits, top)
        return run

    def _bind_prefill(self, slot: int) -> _PrefillBinding:
        adapter = self._adapters[slot]
        batch = None if adapter is None else self._batch([adapter])
        session, binding = self._bind(slot, 1, batch)
        masks = {} if batch is None else batch.masks([adapter])
        for name, mask in masks.items():
            _bind_host(binding, name, mask)
        return _PrefillBinding(session, binding, batch, masks)

    def _bind(self, first: int, count: int, batch: AdapterBatch | None) -> tuple[InferenceSession, IOBinding]:
        """A session, and a binding whose past and present are the slots `first .. first + count - 1`."""
        session = self._shared.session if batch is None else self._shared.wide
        assert session is not None  # noqa: S101
        binding, layout = session.io_binding(), self._cache.layout
        shape, dtype = layout.shape(count), layout.dtype.type
        place = self._cache.device, self._cache.device_id
        for part in range(layout.parts):
            name = f"{part // 2}.{'kv'[part % 2]}"
            address = self._cache.pointer(part, first)
            binding.bind_input(f"past.{name}", *place, dtype, shape, address)
            binding.bind_output(f"present.{name}", *place, dtype, shape, address)
        if batch is not None:
            for name, value in batch.values.items():
                binding.bind_ortvalue_input(name, value)
        return session, binding

    def _bind_inputs(self, run: _DecodeRun) -> None:
        arrays: dict[str, NDArray[Any]] = {
            "input_ids": run.ids,
            "seqlens_k": run.seqlens,
            "total_len": run.total,
            "logit_rows": run.rows,
            **run.masks,
        }
        for name, array in arrays.items():
            _bind_host(run.binding, name, array)

    def _bind_output(self, binding: IOBinding, logits: Logits, top: bool) -> TopRows | None:
        """Where the logits go: to the array, or the largest of them to the rows that are returned, which must last as
        long as the binding, and the others nowhere."""
        if not top:
            binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
            return None
        known = TopRows(*logits.shape)
        binding.bind_output("logits", self._cache.device, self._cache.device_id)
        for name, array in ((VALUES, known.values), (TOKENS, known.tokens)):
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return known


def _bind_host(binding: IOBinding, name: str, array: NDArray[Any]) -> None:
    """Bind an array of ours, which must last as long as the binding."""
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _keep(kept: OrderedDict[K, V], key: K, value: V, limit: int) -> V:
    """Put in a value, in the place of the oldest where there are too many."""
    while len(kept) >= limit:
        kept.popitem(last=False)
    kept[key] = value
    return value
