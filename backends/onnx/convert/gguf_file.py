"""A GGUF file read as untrusted input: every length is checked against the file before it is used.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert.quantise import Float32, UInt8, Weight, from_q8_0

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MAX_NAME = 65_535

Number = int | float | bool
Value = Number | str | list[str] | NDArray[np.generic]

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies. shape: rows first (GGUF stores it columns first); offset: bytes from the file's start."""

    name: str
    shape: tuple[int, ...]
    dtype: GGMLQuantizationType
    offset: int
    size: int


class GgufFile:
    """The metadata and tensors of one file. `metadata` and `tensors` are plain dicts by name.

    Raises (constructor):
        CorruptModel: the file contradicts itself. Unsupported: a tensor type or version that is not known here.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        try:
            self._bytes: UInt8 = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:  # numpy refuses to map an empty file with a ValueError
            raise CorruptModel(self.name, f"cannot be read: {error}") from error
        cursor = _Cursor(self._bytes, self.name)
        if cursor.take(4, "magic").tobytes() != MAGIC:
            raise CorruptModel(self.name, "does not begin with GGUF")
        version = cursor.integer("<u4", "version")
        if version not in (2, 3):
            raise Unsupported(f"GGUF version {version} of {self.name}; versions 2 and 3 (little-endian) can be read")
        tensor_count = cursor.count("<u8", "tensor count", smallest=24)
        metadata_count = cursor.count("<u8", "metadata count", smallest=13)
        self.metadata: dict[str, Value] = {}
        for _ in range(metadata_count):
            key = cursor.string("metadata key", MAX_NAME)
            if key in self.metadata:
                raise CorruptModel(self.name, f"metadata key {key!r} occurs twice")
            self.metadata[key] = cursor.value(key)
        infos = [cursor.tensor_info() for _ in range(tensor_count)]
        self.tensors = self._place(infos, cursor.position)

    def text(self, key: str) -> str | None:
        """The string under `key`, None if absent."""
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, str):
            raise CorruptModel(self.name, f"metadata {key} must be a string")
        return value

    def texts(self, key: str) -> list[str] | None:
        """The list of strings under `key`, None if absent."""
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, list):
            raise CorruptModel(self.name, f"metadata {key} must be a list of strings")
        return value

    def integer(self, key: str) -> int | None:
        """The whole number under `key`, None if absent."""
        value = self.metadata.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise CorruptModel(self.name, f"metadata {key} must be one whole number")
        return value

    def number(self, key: str) -> float | None:
        """The finite number under `key`, None if absent."""
        value = self.metadata.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise CorruptModel(self.name, f"metadata {key} must be one finite number")
        return float(value)

    def flag(self, key: str) -> bool | None:
        """The boolean under `key`, None if absent."""
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, bool):
            raise CorruptModel(self.name, f"metadata {key} must be a boolean")
        return value

    def integers(self, key: str) -> NDArray[np.int64] | None:
        """The list of whole numbers under `key`, None if absent."""
        value = self.metadata.get(key)
        if value is None:
            return None
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
            raise CorruptModel(self.name, f"metadata {key} must be a list of whole numbers")
        return value.astype(np.int64)

    def weight(self, name: str) -> Weight:
        """The tensor `name`: float32 in its shape, or its codes as they are if it is Q8_0.

        Raises:
            Unsupported: the gguf package does not read its quantisation. CorruptModel: it holds NaN or infinity.
        """
        tensor = self.tensors[name]
        data = self._bytes[tensor.offset : tensor.offset + tensor.size]
        block, block_bytes = GGML_QUANT_SIZES[tensor.dtype]
        rows = data.reshape(-1, tensor.shape[-1] // block * block_bytes)
        if tensor.dtype == GGMLQuantizationType.Q8_0:
            blocks = from_q8_0(rows)
            self._check_finite(name, blocks.scales)
            return blocks
        try:
            with np.errstate(all="ignore"):
                numbers: Float32 = dequantize(rows, tensor.dtype)
        except NotImplementedError as error:
            raise Unsupported(f"quantisation type {tensor.dtype.name} of {name} in {self.name}") from error
        self._check_finite(name, numbers)
        return numbers.reshape(tensor.shape)

    def _check_finite(self, name: str, numbers: Float32) -> None:
        if not np.isfinite(numbers).all():
            raise CorruptModel(self.name, f"tensor {name!r} holds numbers that are not finite")

    def _place(self, infos: list[tuple[str, tuple[int, ...], int, int]], end: int) -> dict[str, Tensor]:
        alignment = self.integer("general.alignment") or DEFAULT_ALIGNMENT
        if not 1 <= alignment <= 1 << 20:
            raise CorruptModel(self.name, f"alignment of {alignment} bytes")
        start = -(-end // alignment) * alignment
        tensors: dict[str, Tensor] = {}
        for name, shape, type_number, offset in infos:
            if name in tensors:
                raise CorruptModel(self.name, f"tensor {name!r} occurs twice")
            try:
                dtype = GGMLQuantizationType(type_number)
            except ValueError as error:
                raise Unsupported(f"tensor type number {type_number} of {name} in {self.name}") from error
            block, block_bytes = GGML_QUANT_SIZES[dtype]
            if not shape or min(shape) < 1 or shape[-1] % block:
                raise CorruptModel(self.name, f"tensor {name!r} has the shape {shape}, impossible for {dtype.name}")
            size = math.prod(shape) // block * block_bytes
            if start + offset + size > len(self._bytes):
                reason = f"tensor {name!r} declares {size} bytes at {start + offset}, the file has {len(self._bytes)}"
                raise CorruptModel(self.name, reason)
            tensors[name] = Tensor(name, shape, dtype, start + offset, size)
        return tensors


class _Cursor:
    """Reads forward and never beyond the end."""

    def __init__(self, data: UInt8, file: str) -> None:
        self._data = data
        self._file = file
        self.position = 0

    def take(self, size: int, what: str) -> UInt8:
        left = len(self._data) - self.position
        if size > left:
            raise CorruptModel(self._file, f"{what} declares {size} bytes, {left} are left in the file")
        self.position += size
        return self._data[self.position - size : self.position]

    def integer(self, dtype: str, what: str) -> int:
        return int(self.take(np.dtype(dtype).itemsize, what).view(dtype)[0])

    def count(self, dtype: str, what: str, smallest: int) -> int:
        """A number of things that take at least `smallest` bytes each."""
        number = self.integer(dtype, what)
        left = len(self._data) - self.position
        if number * smallest > left:
            raise CorruptModel(self._file, f"{what} is {number}, {left} bytes are left in the file")
        return number

    def string(self, what: str, longest: int | None = None) -> str:
        size = self.integer("<u8", what)
        if longest is not None and size > longest:
            raise CorruptModel(self._file, f"{what} declares {size} bytes, at most {longest} are allowed")
        try:
            return self.take(size, what).tobytes().decode()
        except UnicodeDecodeError as error:
            raise CorruptModel(self._file, f"{what} is not UTF-8") from error

    def value(self, key: str) -> Value:
        what = f"metadata {key}"
        kind = self.integer("<u4", what)
        if kind == _STRING:
            return self.string(what)
        if kind != _ARRAY:
            scalar: Number = self.take(self._scalar(kind, what).itemsize, what).view(self._scalar(kind, what))[0].item()
            return scalar
        kind = self.integer("<u4", what)
        if kind == _STRING:
            return [self.string(what) for _ in range(self.count("<u8", what, smallest=8))]
        dtype = self._scalar(kind, what)
        return self.take(self.count("<u8", what, dtype.itemsize) * dtype.itemsize, what).view(dtype)

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape (rows first), type number and offset within the data section."""
        name = self.string("tensor name", MAX_NAME)
        dimensions = self.integer("<u4", f"tensor {name!r}")
        if dimensions > MAX_DIMENSIONS:
            raise CorruptModel(
                self._file, f"tensor {name!r} has {dimensions} dimensions, at most {MAX_DIMENSIONS} exist"
            )
        shape = tuple(self.integer("<u8", f"tensor {name!r}") for _ in range(dimensions))[::-1]
        return name, shape, self.integer("<u4", f"tensor {name!r}"), self.integer("<u8", f"tensor {name!r}")

    def _scalar(self, kind: int, what: str) -> np.dtype[np.generic]:
        if kind not in _SCALARS:
            raise CorruptModel(self._file, f"{what} has the unknown type {kind}")
        return np.dtype(_SCALARS[kind])
