"""Safetensors files read as untrusted input, one file or an index of shards.

Format: https://github.com/huggingface/safetensors#format - a little-endian header length, a JSON header, the bytes.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert.folder import ModelFolder
from backends.onnx.convert.quantise import Float32

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000
"""The limit of the reference implementation."""

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class SafetensorsFile:
    """One file of a folder. `entries` maps a tensor's name to its shape.

    Raises (constructor):
        CorruptModel: the header is absurd or declares tensors that the file does not hold.
    """

    def __init__(self, folder: ModelFolder, name: str) -> None:
        self.name = name
        path = folder.path(name)
        size = path.stat().st_size
        if size < 8:
            raise CorruptModel(name, f"has {size} bytes, too few for a header")
        self._bytes: NDArray[np.uint8] = np.memmap(path, np.uint8, "r")
        length = int(self._bytes[:8].view("<u8")[0])
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise CorruptModel(name, f"declares a header of {length} bytes in a file of {size}")
        self._start = 8 + length
        try:
            raw = msgspec.json.decode(self._bytes[8 : self._start].tobytes(), type=dict[str, msgspec.Raw])
            raw.pop("__metadata__", None)
            self._entries = {key: msgspec.json.decode(value, type=_Entry) for key, value in raw.items()}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptModel(name, f"its header is not what safetensors describes: {error}") from error
        for key, entry in self._entries.items():
            self._check(key, entry, size - self._start)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by name."""
        return {key: tuple(entry.shape) for key, entry in self._entries.items()}

    def weight(self, name: str) -> Float32:
        """The tensor `name` as float32.

        Raises:
            Unsupported: it does not hold floating-point numbers of 16, 32 or 64 bits. CorruptModel: one of them is NaN
            or infinite.
        """
        entry = self._entries[name]
        begin, end = entry.data_offsets
        data = self._bytes[self._start + begin : self._start + end]
        if entry.dtype == "BF16":  # the upper half of a float32
            numbers = (_view(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif entry.dtype in ("F16", "F32", "F64"):
            numbers = _view(data, f"<f{_BITS[entry.dtype] // 8}").astype(np.float32)
        else:
            raise Unsupported(f"tensor {name} of {self.name} holds {entry.dtype}; F16, BF16, F32 and F64 can be read")
        if not np.isfinite(numbers).all():
            raise CorruptModel(self.name, f"tensor {name!r} holds numbers that are not finite")
        return numbers.reshape(entry.shape)

    def _check(self, key: str, entry: _Entry, available: int) -> None:
        if entry.dtype not in _BITS:
            raise Unsupported(f"tensor {key} of {self.name} has the unknown type {entry.dtype[:20]}")
        begin, end = entry.data_offsets
        if any(n < 0 for n in entry.shape):
            raise CorruptModel(self.name, f"tensor {key!r} has the shape {entry.shape}")
        needed = math.prod(entry.shape) * _BITS[entry.dtype] // 8
        if not 0 <= begin <= end <= available or end - begin != needed:
            reason = f"tensor {key!r} needs {needed} bytes and declares [{begin}, {end}) of {available}"
            raise CorruptModel(self.name, reason)


class FolderWeights:
    """The tensors of a folder by name, whether in one file or in shards."""

    def __init__(self, folder: ModelFolder) -> None:
        if not folder.has(INDEX_FILE):
            single = SafetensorsFile(folder, SINGLE_FILE)
            self._file_of = dict.fromkeys(single.shapes, single)
            return
        names = folder.json(INDEX_FILE).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise CorruptModel(INDEX_FILE, "weight_map must map tensor names to file names")
        files = {name: SafetensorsFile(folder, _shard(name)) for name in sorted(set(names.values()))}
        self._file_of = {key: files[name] for key, name in names.items()}
        for key, file in self._file_of.items():
            if key not in file.shapes:
                raise CorruptModel(file.name, f"tensor {key!r} of the index is not in it")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by name."""
        return {key: file.shapes[key] for key, file in self._file_of.items()}

    def weight(self, name: str) -> Float32:
        """The tensor `name` as float32, with the checks of `SafetensorsFile.weight`."""
        return self._file_of[name].weight(name)

    def file(self, name: str) -> str:
        """The file that holds the tensor `name`."""
        return self._file_of[name].name


def _shard(name: str) -> str:
    if "/" in name or not name.endswith(".safetensors"):
        raise CorruptModel(INDEX_FILE, f"names the shard {name[:200]!r}, which is not a .safetensors file beside it")
    return name


def _view(data: NDArray[np.uint8], dtype: str) -> NDArray[Any]:
    # A header of any length leaves the tensors unaligned; numpy views of a copy are aligned.
    return np.frombuffer(data.tobytes(), dtype)
