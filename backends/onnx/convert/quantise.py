"""Weight quantisation: blockwise, as MatMulNBits and GatherBlockQuantized want it, and per output for integer products.

A matrix [rows, columns] is cut along its columns into blocks of 32 that share one float32 scale. Codes are unsigned:
`weight = (code - zero_point) * scale`, with an implied zero point of 128 for 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.errors import Unsupported

BLOCK = 32
ROWS_AT_ONCE = 4096
"""Rows quantised together: bounds the temporaries of a large vocabulary to a few hundred megabytes."""

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Int8Blocks:
    """codes: uint8 [rows, columns / 32, 32]; scales: float32 [rows, columns / 32]; zero point 128."""

    codes: UInt8
    scales: Float32

    def __getitem__(self, rows: slice | NDArray[np.intp]) -> Int8Blocks:
        """The matrix of these rows, in this order."""
        return Int8Blocks(self.codes[rows], self.scales[rows])

    def dequantise(self) -> Float32:
        """float32 [rows, columns]."""
        centred = self.codes.astype(np.float32) - np.float32(128)
        return np.asarray((centred * self.scales[..., None]).reshape(len(centred), -1), np.float32)


@dataclass(frozen=True, slots=True)
class Int4Blocks:
    """codes: uint8 [rows, columns / 32, 16], low nibble first; scales: float32 [rows, columns / 32];
    zero_points: uint8 [rows, ceil(columns / 64)], low nibble first."""

    codes: UInt8
    scales: Float32
    zero_points: UInt8


@dataclass(frozen=True, slots=True)
class Int8Outputs:
    """A matrix for integer products: codes int8 [columns, rows], transposed, -127..127; scales float32 [rows]."""

    codes: NDArray[np.int8]
    scales: Float32


Weight = Float32 | Int8Blocks
"""A matrix as a source holds it: plain numbers, or codes that need no second quantisation."""


def to_float32(weight: Weight) -> Float32:
    """The plain numbers of a weight, float32 [rows, columns]."""
    return weight.dequantise() if isinstance(weight, Int8Blocks) else weight


def to_int8(weights: list[Weight]) -> Int8Blocks:
    """The matrices stacked by rows, nearest 8 bit codes; those that are 8 bit blocks already are taken bit by bit."""
    parts = [part if isinstance(part, Int8Blocks) else _nearest_int8(part) for part in weights]
    if len(parts) == 1:
        return parts[0]
    return Int8Blocks(np.concatenate([p.codes for p in parts]), np.concatenate([p.scales for p in parts]))


def to_int8_outputs(weight: Float32) -> Int8Outputs:
    """The nearest 8 bit codes with one scale per row."""
    scales = np.abs(weight).max(axis=1) / np.float32(127)
    scales[scales == 0] = 1
    return Int8Outputs(np.rint(weight / scales[:, None]).astype(np.int8).T, scales)


def to_int4(weights: list[Weight]) -> Int4Blocks:
    """The matrices stacked by rows, asymmetric 4 bit codes of least squared error over a small grid of ranges."""
    chunks = [
        _least_squares_int4(rows[start : start + ROWS_AT_ONCE])
        for rows in map(to_float32, weights)
        for start in range(0, len(rows), ROWS_AT_ONCE)
    ]
    return Int4Blocks(
        np.concatenate([c.codes for c in chunks]),
        np.concatenate([c.scales for c in chunks]),
        np.concatenate([c.zero_points for c in chunks]),
    )


def from_q8_0(data: UInt8) -> Int8Blocks:
    """GGUF Q8_0 rows (per block an fp16 scale and 32 signed bytes; uint8 [rows, columns / 32 * 34]), exactly."""
    blocks = data.reshape(data.shape[0], -1, BLOCK + 2)
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0].astype(np.float32)
    # Two's complement plus 128 is the same byte with its top bit turned.
    codes = blocks[..., 2:] ^ np.uint8(0x80)
    return Int8Blocks(codes, scales)


def _blocks(weight: Float32) -> Float32:
    rows, columns = weight.shape
    if columns % BLOCK:
        raise Unsupported(f"quantisation needs rows of a multiple of {BLOCK} weights, not {columns}; use fp32 or fp16")
    return weight.reshape(rows, columns // BLOCK, BLOCK)


def _nearest_int8(weight: Float32) -> Int8Blocks:
    whole = _blocks(weight)
    codes = np.empty(whole.shape, np.uint8)
    scales = np.empty(whole.shape[:2], np.float32)
    for start in range(0, len(whole), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        blocks = whole[part]
        scale = np.abs(blocks).max(-1) / np.float32(127)
        scale[scale == 0] = 1
        codes[part] = (np.rint(blocks / scale[..., None]) + 128).astype(np.uint8)
        scales[part] = scale
    return Int8Blocks(codes, scales)


def _least_squares_int4(weight: Float32) -> Int4Blocks:
    blocks = _blocks(weight)
    low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)
    error = np.full(low.shape, np.inf, np.float32)
    zero = np.zeros(low.shape, np.float32)
    codes = np.zeros(blocks.shape, np.float32)
    # A range narrower than the extremes clips outliers and resolves the rest better: try a few, keep each best.
    for shrink in (1.0, 0.95, 0.9, 0.85, 0.8):
        scale = ((high - low) * np.float32(shrink / 15)).astype(np.float32)
        scale[scale == 0] = 1
        exact_zero = -low * np.float32(shrink) / scale
        for candidate in (np.floor(exact_zero), np.ceil(exact_zero)):
            z = np.clip(candidate, 0, 15)
            c = np.clip(np.rint(blocks / scale[..., None]) + z[..., None], 0, 15)
            e = (((c - z[..., None]) * scale[..., None] - blocks) ** 2).sum(-1)
            better = e < error
            error = np.where(better, e, error)
            zero = np.where(better, z, zero)
            codes = np.where(better[..., None], c, codes)
    # For fixed codes the scale of least squared error has a closed form.
    centred = codes - zero[..., None]
    norm = (centred**2).sum(-1)
    scales = np.where(norm > 0, (centred * blocks).sum(-1) / np.maximum(norm, 1e-30), 1).astype(np.float32)
    zeros = zero.astype(np.uint8)
    if zeros.shape[1] % 2:
        zeros = np.pad(zeros, ((0, 0), (0, 1)))
    return Int4Blocks(_pack(codes.astype(np.uint8)), scales, _pack(zeros))


def _pack(nibbles: NDArray[Any]) -> UInt8:
    """Pairs of 4 bit numbers along the last axis as bytes, the first in the low half."""
    return np.asarray(nibbles[..., 0::2] | (nibbles[..., 1::2] << 4), np.uint8)
