"""Properties of the block quantisations."""

from __future__ import annotations

import numpy as np
import pytest

from backends.errors import Unsupported
from backends.onnx.convert.quantise import Int8Blocks, to_int4, to_int8

DRAW = np.random.default_rng(0)


def test_int8_is_off_by_at_most_half_a_step() -> None:
    weight = DRAW.normal(size=(5000, 64)).astype(np.float32)
    blocks = to_int8([weight])
    error = np.abs(blocks.dequantise() - weight).reshape(5000, 2, 32)
    assert (error <= blocks.scales[..., None] * 0.5001).all()
    # The largest weight of a block is met exactly: the scale wastes no code.
    assert (blocks.codes.reshape(-1, 32).astype(int) - 128).max() == 127


def test_zeros_stay_zero() -> None:
    assert not to_int8([np.zeros((2, 32), np.float32)]).dequantise().any()
    zero = to_int4([np.zeros((2, 32), np.float32)])
    codes = np.stack([zero.codes & 15, zero.codes >> 4], -1).reshape(2, 32)
    assert ((codes - zero.zero_points[:, :1] & 15) * zero.scales == 0).all()


def test_blocks_pass_through_unchanged_beside_plain_weights() -> None:
    blocks = Int8Blocks(DRAW.integers(0, 256, (3, 2, 32), np.uint8), DRAW.normal(size=(3, 2)).astype(np.float32))
    plain = DRAW.normal(size=(2, 64)).astype(np.float32)
    stacked = to_int8([plain, blocks])
    np.testing.assert_array_equal(stacked.codes[2:], blocks.codes)
    np.testing.assert_array_equal(stacked.scales[2:], blocks.scales)


def test_int4_beats_rounding_to_the_nearest_of_evenly_spread_codes() -> None:
    weight = DRAW.standard_t(4, size=(256, 64)).astype(np.float32)
    blocks = to_int4([weight])
    codes = np.stack([blocks.codes & 15, blocks.codes >> 4], -1).reshape(256, 2, 32).astype(np.float32)
    zeros = np.stack([blocks.zero_points & 15, blocks.zero_points >> 4], -1).reshape(256, -1)
    ours = (((codes - zeros[..., None]) * blocks.scales[..., None]).reshape(weight.shape) - weight) ** 2
    scale = np.abs(weight.reshape(256, 2, 32)).max(-1, keepdims=True) / 7
    nearest = (np.rint(weight.reshape(256, 2, 32) / scale) * scale).reshape(weight.shape)
    assert ours.mean() < 0.8 * ((nearest - weight) ** 2).mean()


def test_rows_that_do_not_divide_into_blocks_are_refused() -> None:
    with pytest.raises(Unsupported, match="multiple of 32 weights, not 48"):
        to_int8([np.zeros((2, 48), np.float32)])
