"""Tensor contract: each operation has the properties that numpy's has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import example, given
from hypothesis import strategies as st

from unicb.testing._base import Checks
from unicb.testing._drawn import ALL_SPECIAL, EPSILON, arrays, dtype_of, moderate


class OpsChecks(Checks):
    def test_doors_round_trip(self, dtype: str) -> None:
        """``to_numpy(from_numpy(a, like))`` is ``a`` rounded to the dtype, reversed and transposed
        views included; shape and dtype are kept, and the host's arrays share no memory with the
        tensor."""
        ops = self.harness.backend.ops

        @moderate
        @given(arrays())
        @example(ALL_SPECIAL)
        def check(array: npt.NDArray[Any]) -> None:
            like = self.tensor(np.zeros(1, np.float32), dtype)
            given = array[::-1].T.copy()[::-1].T  # strides of either sign
            with np.errstate(over="ignore"):
                tensor = ops.from_numpy(given, like)
            assert tensor.dtype == like.dtype
            assert tuple(tensor.shape) == array.shape
            host = ops.to_numpy(tensor)
            assert host.dtype == dtype_of(dtype)
            before = host.copy()
            rounded = ops.to_numpy(self.tensor(given.copy(), dtype))
            assert np.array_equal(host, rounded, equal_nan=True)
            if dtype in ("float32", "float64"):
                assert np.array_equal(host, given, equal_nan=True)
            given += 1
            host += 1
            assert np.array_equal(ops.to_numpy(tensor), before, equal_nan=True)

        check()

    def test_clamp(self, dtype: str) -> None:
        """Elementwise limits, as numpy's clip; NaN stays NaN."""
        ops = self.harness.backend.ops

        @moderate
        @given(arrays())
        @example(ALL_SPECIAL)
        def check(array: npt.NDArray[Any]) -> None:
            tensor = self.tensor(array, dtype)
            clamped = ops.clamp(tensor, -4.0, 2.5)
            assert clamped.dtype == tensor.dtype
            expected = np.clip(ops.to_numpy(tensor), -4.0, 2.5)
            assert np.array_equal(ops.to_numpy(clamped), expected, equal_nan=True)

        check()

    def test_to_uint8(self, dtype: str) -> None:
        """Bit for bit: truncates toward zero, saturates, NaN is 0; on views with steps too."""
        ops = self.harness.backend.ops

        @moderate
        @given(arrays(), st.integers(1, 2))
        @example(ALL_SPECIAL, 1)
        def check(array: npt.NDArray[Any], stride: int) -> None:
            tensor = self.tensor(array, dtype)[::stride]
            held = ops.to_numpy(tensor)
            expected = np.clip(np.trunc(np.where(np.isnan(held), 0, held)), 0, 255)
            out = ops.to_uint8(tensor)
            assert isinstance(out, np.ndarray)
            assert out.dtype == np.uint8
            assert out.shape == array[::stride].shape
            assert np.array_equal(out, expected.astype(np.uint8))

        check()

    def test_matmul(self, dtype: str) -> None:
        """numpy's matrix product with broadcast batch dimensions, dtype kept, each element to
        within the rounding of its own sum of products."""
        ops = self.harness.backend.ops
        small = st.floats(-8, 8, width=32, allow_subnormal=False)
        batches: list[Any] = [((), ()), ((), (2,)), ((3,), ()), ((3, 1), (2,)), ((2,), (3, 1))]

        def is_right(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
            a, b = self.tensor(one, dtype), self.tensor(other, dtype)
            product = ops.matmul(a, b)
            assert product.dtype == a.dtype
            assert tuple(product.shape) == (one @ other).shape
            wide_a = ops.to_numpy(a).astype(np.float64)
            wide_b = ops.to_numpy(b).astype(np.float64)
            error = np.abs(ops.to_numpy(product) - wide_a @ wide_b)
            k = one.shape[-1]
            bound = (k + 1) * EPSILON[dtype] * (np.abs(wide_a) @ np.abs(wide_b))
            # Products below the dtype's smallest normal number may vanish.
            assert (error <= bound + k * 2.0**-14 * EPSILON[dtype]).all()

        @moderate
        @given(st.data(), st.sampled_from(batches), st.tuples(*[st.integers(1, 5)] * 3))
        def check(data: st.DataObject, batch: Any, sizes: tuple[int, int, int]) -> None:
            i, k, j = sizes
            one = data.draw(arrays((*batch[0], i, k), small))
            is_right(one, data.draw(arrays((*batch[1], k, j), small)))

        check()
        # Few of those that are drawn have four axes, and these may be zeros.
        random = np.random.default_rng(0)
        for first, second in batches:
            one, other = random.normal(size=(*first, 4, 3)), random.normal(size=(*second, 3, 5))
            is_right(one.astype(np.float32), other.astype(np.float32))

    def test_verbs_leave_their_arguments_alone(self, dtype: str) -> None:
        """No verb writes to the tensor that it is given."""
        ops = self.harness.backend.ops
        array = np.array([[-300.0, math.nan], [0.5, 300.0]], dtype=np.float32)
        tensor = self.tensor(array, dtype)
        ops.chunk(tensor, 2)
        ops.clamp(tensor, -1, 1)
        ops.to_uint8(tensor)
        ops.matmul(tensor, tensor)
        ops.concat([tensor, tensor])
        assert np.array_equal(ops.to_numpy(tensor), array.astype(dtype_of(dtype)), equal_nan=True)

    def test_empty_tensors(self, dtype: str) -> None:
        """A batch of no rows goes through every operation and stays one."""
        ops = self.harness.backend.ops
        empty = self.tensor(np.zeros((0, 3), np.float32), dtype)
        assert [tuple(part.shape) for part in ops.chunk(empty, 2)] == [(0, 3)] * 2
        assert tuple(ops.clamp(empty, 0, 1).shape) == (0, 3)
        assert ops.to_uint8(empty).shape == ops.to_numpy(empty).shape == (0, 3)
        assert tuple(ops.concat([empty, empty]).shape) == (0, 3)
        square = self.tensor(np.zeros((3, 3), np.float32), dtype)
        assert tuple(ops.matmul(empty, square).shape) == (0, 3)

    def test_subnormal_numbers(self, dtype: str) -> None:
        """The smallest numbers that float32 has are dark, and clamp leaves them or makes them 0."""
        ops = self.harness.backend.ops
        tiny = np.array([1, 0x80000001], dtype=np.uint32).view(np.float32)
        tensor = self.tensor(tiny, dtype)
        assert ops.to_uint8(tensor).tolist() == [0, 0]
        clamped = ops.to_numpy(ops.clamp(tensor, -4.0, 2.5)).astype(np.float64)
        assert (np.abs(clamped) <= 1.5e-45).all()
