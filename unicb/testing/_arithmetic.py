"""Arithmetic: tensors compute, and are indexed, as numpy's arrays are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from unicb.testing._base import Checks
from unicb.testing._drawn import EPSILON, arrays, moderate


class ArithmeticChecks(Checks):
    def test_arithmetic_and_indexing(self, dtype: str) -> None:
        """Tensors themselves do what the contract promises: + - * / with tensors and numbers, on
        either side, reshape, swapaxes, slices with steps."""
        ops = self.harness.backend.ops
        array = np.arange(1, 13, dtype=np.float64).reshape(3, 4)
        x = self.tensor(array.astype(np.float32), dtype)
        row = x[1]
        pairs = [
            (x[:2] + x[1:], array[:2] + array[1:]),
            (x - row, array - array[1]),
            (x * row, array * array[1]),
            (x / x[:, :1], array / array[:, :1]),
            (1 + x, 1 + array),
            (x - 1, array - 1),
            (2.0 - x, 2.0 - array),
            (x * 0.5, array * 0.5),
            (0.5 * x, array * 0.5),
            (x / 4, array / 4),
            (1.0 / x[:1, :4:3], 1.0 / array[:1, :4:3]),
            (x.reshape((2, 6)), array.reshape(2, 6)),
            (x.swapaxes(0, 1), array.T),
            (x.reshape((3, 2, 2)).swapaxes(0, 2), array.reshape(3, 2, 2).T),
            (x[1:, ::2], array[1:, ::2]),
            (x[0], array[0]),
        ]
        for tensor, expected in pairs:
            assert tensor.dtype == x.dtype
            assert tuple(tensor.shape) == expected.shape
            error = np.abs(ops.to_numpy(tensor).astype(np.float64) - expected)
            assert (error <= EPSILON[dtype] * np.abs(expected)).all()

    def test_indexing(self, dtype: str) -> None:
        """Integers from either end, slices with steps, ``...`` and ``None``: the elements that
        numpy gives, dtype kept."""
        ops = self.harness.backend.ops
        array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
        x = self.tensor(array, dtype)
        keys: list[Any] = [
            *(1, -1, (0, 2), (2, -1, 3), ..., (..., 0), (1, ..., -2), None, (slice(None), None)),
            *(slice(None, None, 2), slice(1, None, 2), slice(None, None, 5), slice(-2, None)),
            (slice(None), slice(1, 4, 2)),
            (slice(None), slice(None), slice(-4, -1, 2)),
            (slice(0, 3, 2), slice(3, None, 3), slice(None, None, 4)),
            (..., slice(1, None, 3)),
            (-1, slice(None, 3, 2), None),
        ]
        for key in keys:
            part, expected = x[key], array[key]
            assert part.dtype == x.dtype
            assert tuple(part.shape) == expected.shape
            assert np.array_equal(ops.to_numpy(part), expected)

    def test_power(self, dtype: str) -> None:
        """A tensor to the power of a number, whole or not, positive or negative, dtype kept, to
        within its rounding; NaN for a negative number to a fraction."""
        ops = self.harness.backend.ops
        exponents = (2, 3, 0.5, -1, -0.5, 1.5, 2.0, 1, 0, 0.25)
        values = st.floats(0.0625, 16, width=32)

        @moderate
        @given(arrays(values=values), st.sampled_from(exponents))
        def check(array: npt.NDArray[Any], exponent: float) -> None:
            tensor = self.tensor(array, dtype)
            power = tensor**exponent
            assert power.dtype == tensor.dtype
            assert tuple(power.shape) == array.shape
            expected = ops.to_numpy(tensor).astype(np.float64) ** exponent
            error = np.abs(ops.to_numpy(power).astype(np.float64) - expected)
            assert (error <= 2 * EPSILON[dtype] * expected).all()

        check()
        special = self.tensor(np.array([-2.0, 0.0, math.nan], np.float32), dtype)
        for exponent, numbers in (
            (2, [4.0, 0.0, math.nan]),
            (3, [-8.0, 0.0, math.nan]),
            (-1, [-0.5, math.inf, math.nan]),
            (0.5, [math.nan, 0.0, math.nan]),
        ):
            assert np.array_equal(ops.to_numpy(special**exponent), numbers, equal_nan=True)
