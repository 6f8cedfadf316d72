"""bfloat16 on MindSpore CPU, where the framework itself can do little with it: the seven
operations do what they promise all the same."""

from __future__ import annotations

import math

import mindspore
import numpy as np
import pytest

from unicb.latents import to_rgb
from unicb.ops import TensorOps
from unicb.testing._preview import FORMAT
from unicb_mindspore import backend

HELD = np.array([[-300.0, math.nan], [0.5, 300.0]], dtype=np.float32)  # exact in bfloat16


@pytest.fixture
def ops() -> TensorOps:
    return backend.ops


@pytest.fixture
def tensor() -> mindspore.Tensor:
    return mindspore.Tensor(HELD).astype(mindspore.bfloat16)


def test_doors(ops: TensorOps, tensor: mindspore.Tensor) -> None:
    host = ops.to_numpy(tensor)
    assert host.dtype == np.float32
    np.testing.assert_array_equal(host, HELD)
    again = ops.from_numpy(host, like=tensor)
    assert again.dtype == mindspore.bfloat16
    np.testing.assert_array_equal(ops.to_numpy(again), HELD)


def test_chunk(ops: TensorOps, tensor: mindspore.Tensor) -> None:
    first, second = ops.chunk(tensor, 2)
    assert first.dtype == mindspore.bfloat16
    np.testing.assert_array_equal(ops.to_numpy(first), HELD[:1])
    np.testing.assert_array_equal(ops.to_numpy(second), HELD[1:])


def test_clamp(ops: TensorOps, tensor: mindspore.Tensor) -> None:
    clamped = ops.clamp(tensor, -4.0, 2.5)
    assert clamped.dtype == mindspore.bfloat16
    np.testing.assert_array_equal(ops.to_numpy(clamped), np.clip(HELD, -4.0, 2.5))


def test_to_uint8(ops: TensorOps, tensor: mindspore.Tensor) -> None:
    assert ops.to_uint8(tensor).tolist() == [[0, 0], [0, 255]]


def test_matmul(ops: TensorOps) -> None:
    a = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    tensor = mindspore.Tensor(a).astype(mindspore.bfloat16)
    product = ops.matmul(tensor, tensor)
    assert product.dtype == mindspore.bfloat16
    np.testing.assert_array_equal(ops.to_numpy(product), a @ a)


def test_concat(ops: TensorOps, tensor: mindspore.Tensor) -> None:
    repeated = ops.concat([tensor, tensor])
    assert repeated.dtype == mindspore.bfloat16
    np.testing.assert_array_equal(ops.to_numpy(repeated), np.concatenate([HELD, HELD]))


def test_preview_colours(ops: TensorOps) -> None:
    latents = np.random.default_rng(3).normal(size=(2, 4, 6, 5)).astype(np.float32)
    wide, narrow = mindspore.Tensor(latents), mindspore.Tensor(latents).astype(mindspore.bfloat16)
    expected, _ = to_rgb(wide, FORMAT, ops)
    pixels, finite = to_rgb(narrow, FORMAT, ops)
    assert finite
    assert np.abs(pixels.astype(int) - expected).max() <= 4
