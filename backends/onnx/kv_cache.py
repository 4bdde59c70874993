"""KV cache of one model: for each layer two buffers [slots, kv_heads, max_length, head_dim], shared by past and
present.

A run over the slots `first .. first + n - 1` binds the buffers at a pointer offset, so that neither a sequence that
joins nor one that leaves costs a copy.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from backends.onnx.prefix_cache import BLOCK
from backends.onnx.session import CPU_PROVIDER, CUDA_PROVIDER, DeviceInUse

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MAP_NORESERVE = 0x4000
"""Linux's value; the mmap module names it from Python 3.12 on."""


KvType = np.dtype[np.float32] | np.dtype[np.float16] | np.dtype[np.int8]


@dataclass(frozen=True, slots=True)
class KvLayout:
    """Shape of a cache. `length`: tokens per slot. `parts`: two (k and v) per layer, k of layer i is part 2 i."""

    layers: int
    slots: int
    kv_heads: int
    length: int
    head_dim: int
    dtype: KvType
    blocks: int = 0
    """Blocks of `prefix_cache.BLOCK` tokens kept beside the slots."""

    @property
    def parts(self) -> int:
        return 2 * self.layers

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot in one part."""
        return self.kv_heads * self.length * self.head_dim * self.dtype.itemsize

    @property
    def token_bytes(self) -> int:
        """Bytes of one token over all parts."""
        return self.parts * self.kv_heads * self.head_dim * self.dtype.itemsize

    def shape(self, slots: int) -> list[int]:
        """Shape of a part's range of `slots` slots."""
        return [slots, self.kv_heads, self.length, self.head_dim]


def kv_dtype(name: str) -> np.dtype[np.float32] | np.dtype[np.float16]:
    """The element type that a model's config calls `name`."""
    return np.dtype(np.float16) if name == "float16" else np.dtype(np.float32)


class KvCache(Protocol):
    """Memory for the keys and values of all slots, and of blocks kept beside them."""

    layout: KvLayout
    device: DeviceInUse
    device_id: int
    blocks: int

    def pointer(self, part: int, slot: int) -> int:
        """Address, on the device, at which `slot` begins in `part`."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy at least the first `length` tokens of one slot to another."""

    def release(self, slot: int) -> None:
        """Give the slot's memory back where the device can; its content is undefined afterwards."""

    def save(self, slot: int, position: int, block: int) -> None:
        """Copy a block's worth of tokens out of a slot."""

    def load(self, block: int, slot: int, position: int) -> None:
        """Copy a block into a slot at `position`."""


class HostKvCache:
    """Cache in virtual memory: a slot costs what its tokens need and gives it back on release.

    Huge pages are refused: with them one token of a slot would claim 2 MiB in each of its stripes (2.2 GB measured
    where 71 MB were needed).
    """

    device: DeviceInUse = "cpu"
    device_id = 0

    def __init__(self, layout: KvLayout) -> None:
        self.layout = layout
        self.blocks = layout.blocks
        self._memory = _pages(layout.parts * layout.slots * layout.slot_bytes)
        whole: NDArray[np.generic] = np.frombuffer(self._memory, dtype=layout.dtype)
        self._parts = whole.reshape(layout.parts, *layout.shape(layout.slots))
        self._address = int(whole.ctypes.data)
        block = (layout.blocks, layout.parts, layout.kv_heads, BLOCK, layout.head_dim)
        size = max(1, layout.blocks) * BLOCK * layout.token_bytes
        self._blocks = np.frombuffer(_pages(size), dtype=layout.dtype)[: math.prod(block)].reshape(block)

    def pointer(self, part: int, slot: int) -> int:
        return self._address + self._offset(part, slot)

    def copy(self, source: int, target: int, length: int) -> None:
        self._parts[:, target, :, :length] = self._parts[:, source, :, :length]

    def release(self, slot: int) -> None:
        for part in range(self.layout.parts):
            start = -(-self._offset(part, slot) // mmap.PAGESIZE) * mmap.PAGESIZE
            end = self._offset(part, slot + 1) // mmap.PAGESIZE * mmap.PAGESIZE
            if end > start:
                self._memory.madvise(mmap.MADV_DONTNEED, start, end - start)

    def save(self, slot: int, position: int, block: int) -> None:
        self._blocks[block] = self._parts[:, slot, :, position : position + BLOCK]

    def load(self, block: int, slot: int, position: int) -> None:
        self._parts[:, slot, :, position : position + BLOCK] = self._blocks[block]

    def _offset(self, part: int, slot: int) -> int:
        return (part * self.layout.slots + slot) * self.layout.slot_bytes


def _pages(size: int) -> mmap.mmap:
    """Virtual memory of `size` bytes that costs what is touched of it."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", MAP_NORESERVE)
    memory = mmap.mmap(-1, size, flags=flags)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


class DeviceKvCache:
    """Cache in a device's own memory, held by OrtValues; its size is fixed from the start.

    A slot is copied by a graph of one Identity node that reads at one address and writes at the other, because ONNX
    Runtime offers no copy inside a device. It keeps no blocks beside the slots. Written for CUDA; run only with
    `device="cpu"` so far (no GPU was at hand).
    """

    blocks = 0

    def __init__(self, layout: KvLayout, device: DeviceInUse, device_id: int = 0) -> None:
        from onnxruntime import OrtValue

        self.layout = layout
        self.device = device
        self.device_id = device_id
        shape, element = layout.shape(layout.slots), layout.dtype.type
        self._values = [
            OrtValue.ortvalue_from_shape_and_type(shape, element, device, device_id) for _ in range(layout.parts)
        ]
        self._copier = _copy_session(layout.dtype, device, device_id)

    def pointer(self, part: int, slot: int) -> int:
        return int(self._values[part].data_ptr()) + slot * self.layout.slot_bytes

    def copy(self, source: int, target: int, length: int) -> None:
        shape = self.layout.shape(1)
        for part in range(self.layout.parts):
            binding = self._copier.io_binding()
            dtype = self.layout.dtype.type
            binding.bind_input("source", self.device, self.device_id, dtype, shape, self.pointer(part, source))
            binding.bind_output("target", self.device, self.device_id, dtype, shape, self.pointer(part, target))
            self._copier.run_with_iobinding(binding)

    def release(self, slot: int) -> None:
        """Nothing to give back: the buffers stay as they are."""

    def save(self, slot: int, position: int, block: int) -> None:
        raise LookupError(f"no block {block}: a device keeps none")

    def load(self, block: int, slot: int, position: int) -> None:
        raise LookupError(f"no block {block}: a device keeps none")


def _copy_session(dtype: KvType, device: DeviceInUse, device_id: int) -> InferenceSession:
    """A session on the graph `target = Identity(source)`."""
    import onnxruntime
    from onnx import helper

    element = helper.np_dtype_to_tensor_dtype(dtype)
    shape = ["slots", "heads", "length", "dim"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["source"], ["target"])],
        "copy",
        [helper.make_tensor_value_info("source", element, shape)],
        [helper.make_tensor_value_info("target", element, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    providers = [(CUDA_PROVIDER, {"device_id": device_id})] if device == "cuda" else [CPU_PROVIDER]
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
