"""Tensors: means, deviations, products and blends are made of the contract alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from unicb import tensors
from unicb.ops import Tensor
from unicb.testing._base import Checks

#: The relative rounding error that ``unicb.tensors`` promises, by dtype.
ROUNDING = {"float16": 4e-3, "bfloat16": 1.6e-2, "float32": 1e-6, "float64": 1e-6}

_Wide = npt.NDArray[np.float64]


def _normal(*shape: int) -> npt.NDArray[Any]:
    return np.random.default_rng(11).normal(size=shape).astype(np.float32)


def _samples() -> dict[str, npt.NDArray[Any]]:
    """Make arrays for which naive formulas fail, all within the range of float16."""
    spike = np.zeros((2, 3000), np.float32)
    spike[:, 7] = 12000.0, -0.1
    return {
        "a picture": _normal(2, 4, 5, 3),
        "one element": _normal(3, 1),
        "no whole blocks": 0.5 + np.abs(_normal(2, 1009)),
        "65,536 numbers": _normal(1, 65536),
        "beside a large mean": 1400.3 + _normal(2, 200),
        "one number over and over": np.full((2, 1024), 0.1, np.float32),
        "large numbers": 3000 * _normal(2, 130),
        "nothing but one number": spike,
    }


class TensorsChecks(Checks):
    def _pair(self, array: npt.NDArray[Any], dtype: str) -> tuple[Tensor, _Wide]:
        """Return a tensor, and its numbers on the host in a wide dtype."""
        tensor = self.harness.tensor(array, dtype)
        return tensor, self._held(tensor)

    def _held(self, tensor: Tensor) -> _Wide:
        return self.harness.backend.ops.to_numpy(tensor).astype(np.float64)

    def _check(self, found: Tensor, like: Tensor, expected: _Wide, share_of: _Wide) -> None:
        assert found.dtype == like.dtype
        assert tuple(found.shape) == expected.shape
        error = np.abs(self._held(found) - expected)
        dtype = tensors.dtype_name(like)
        tiny = 2.0**-24 if dtype == "float16" else 0.0  # the distance between the smallest numbers
        assert (error <= ROUNDING[dtype] * share_of + tiny).all(), (error / share_of).max()

    def test_mean(self, dtype: str) -> None:
        """``unicb.tensors.mean`` of the whole, of each row and of each channel is numpy's, within
        the dtype's rounding, however many elements there are."""
        ops = self.harness.backend.ops
        for array in _samples().values():
            x, held = self._pair(array, dtype)
            for kept in range(min(3, array.ndim + 1)):
                axes = tuple(range(kept, array.ndim))
                sizes = np.abs(held).mean(axes, keepdims=True)
                expected = held.mean(axes, keepdims=True)
                self._check(tensors.mean(ops, x, kept), x, expected, sizes)

    def test_std_and_norm(self, dtype: str) -> None:
        """``unicb.tensors.std`` and ``norm`` are numpy's, within the dtype's rounding, where the
        sum of the squares is out of the dtype's range, too."""
        ops = self.harness.backend.ops
        for array in _samples().values():
            x, held = self._pair(array, dtype)
            axes = tuple(range(1, array.ndim))
            norm = np.sqrt((held**2).sum(axes, keepdims=True))
            self._check(tensors.norm(ops, x), x, norm, norm)
            if array.min() < array.max():
                std = held.std(axes, keepdims=True)
                self._check(tensors.std(ops, x), x, std, std)

    def test_dot(self, dtype: str) -> None:
        """``unicb.tensors.dot`` is the sum of the products, or their mean, within the rounding of
        the product of the norms; products may be out of the dtype's range as long as it is not."""
        ops = self.harness.backend.ops
        for array in _samples().values():
            x, held = self._pair(array, dtype)
            y, other = self._pair(array[:, ::-1] * 0.0001 + 0.01, dtype)
            axes = tuple(range(1, array.ndim))
            products = (held * other).sum(axes, keepdims=True)
            norms = np.sqrt(
                (held**2).sum(axes, keepdims=True) * (other**2).sum(axes, keepdims=True)
            )
            count = math.prod(array.shape[1:])
            self._check(tensors.dot(ops, x, y), x, products, norms)
            average = tensors.dot(ops, x, y, average=True)
            self._check(average, x, products / count, norms / count)
            squares = (held**2).mean(axes, keepdims=True)
            if squares.max() < 65504:
                self._check(tensors.dot(ops, x, x, average=True), x, squares, squares)

    def test_lerp(self, dtype: str) -> None:
        """``unicb.tensors.lerp`` is either end to the bit, and in between what is in between, with
        a number for all or a tensor of weights."""
        x, start = self._pair(_normal(2, 3, 4), dtype)
        y, end = self._pair(20000 * _normal(4, 3, 2).swapaxes(0, 2), dtype)
        assert np.array_equal(self._held(tensors.lerp(x, y, 0)), start)
        assert np.array_equal(self._held(tensors.lerp(x, y, 1.0)), end)
        assert np.array_equal(self._held(tensors.lerp(y, x, 1)), start)
        sizes = np.abs(start) + np.abs(end)
        self._check(tensors.lerp(x, y, 0.25), x, start * 0.75 + end * 0.25, sizes)
        weights, each = self._pair(np.array([0.25, 0.5], np.float32).reshape(2, 1, 1), dtype)
        expected = start + (end - start) * each
        self._check(tensors.lerp(x, y, weights), x, expected, sizes)
