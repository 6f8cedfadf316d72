"""The tensor contract, as properties against numpy."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unicb.testing._base import Checks

#: Distance between 1 and the next number, for the dtypes that a framework may have.
EPSILON = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}
SPECIAL = [0.0, -0.0, 0.99, 1.0, 254.99, 255.0, 255.5, 256.0, 300.0, -0.5, -1.0, -300.0]
NOT_FINITE = [math.nan, math.inf, -math.inf]

_sizes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)
_values = st.one_of(
    st.sampled_from([float(np.float32(value)) for value in SPECIAL + NOT_FINITE]),
    # Frameworks may flush subnormal numbers to zero for the whole process.
    st.floats(-400, 400, width=32, allow_subnormal=False),
    st.floats(width=32, allow_subnormal=False),
)


def _arrays(shape: Any = _sizes, values: Any = _values) -> st.SearchStrategy[npt.NDArray[Any]]:
    return hnp.arrays(np.float32, shape, elements=values)


_moderate = settings(max_examples=50, deadline=None, derandomize=True, database=None)


class OpsChecks(Checks):
    def _tensor(self, array: npt.NDArray[Any], dtype: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, on overflow of float16
            return self.harness.tensor(array, dtype)

    def test_doors_round_trip(self, dtype: str) -> None:
        """``to_numpy(from_numpy(a, like))`` is ``a`` rounded to the dtype, reversed and transposed
        views included; shape and dtype are kept, and the host's arrays share no memory with the
        tensor."""
        ops = self.harness.backend.ops

        @_moderate
        @given(_arrays())
        def check(array: npt.NDArray[Any]) -> None:
            like = self._tensor(np.zeros(1, np.float32), dtype)
            given = array[::-1].T.copy()[::-1].T  # strides of either sign
            with np.errstate(over="ignore"):
                tensor = ops.from_numpy(given, like)
            assert tensor.dtype == like.dtype
            assert tuple(tensor.shape) == array.shape
            host = ops.to_numpy(tensor)
            assert host.dtype == dtype_of(dtype)
            before = host.copy()
            if dtype in ("float32", "float64"):
                assert np.array_equal(host, given, equal_nan=True)
            given += 1
            host += 1
            assert np.array_equal(ops.to_numpy(tensor), before, equal_nan=True)

        check()

    def test_chunk(self, dtype: str) -> None:
        """Exactly n equal parts along axis 0, in order, dtype kept."""
        ops = self.harness.backend.ops

        @_moderate
        @given(_arrays(), st.integers(1, 3))
        def check(array: npt.NDArray[Any], n: int) -> None:
            tensor = self._tensor(np.concatenate([array] * n), dtype)
            parts = ops.chunk(tensor, n)
            assert isinstance(parts, tuple)
            assert len(parts) == n
            whole = np.split(ops.to_numpy(tensor), n)
            for part, expected in zip(parts, whole, strict=True):
                assert part.dtype == tensor.dtype
                assert np.array_equal(ops.to_numpy(part), expected, equal_nan=True)

        check()

    @pytest.mark.parametrize(("rows", "n"), [(3, 2), (1, 2), (4, 3), (2, 0)])
    def test_chunk_refuses_unequal_parts(self, rows: int, n: int) -> None:
        """ValueError that names the shape when the parts would not be equal."""
        tensor = self._tensor(np.zeros((rows, 5), np.float32), "float32")
        with pytest.raises(ValueError, match=rf"\({rows}, 5\)"):
            self.harness.backend.ops.chunk(tensor, n)

    def test_clamp(self, dtype: str) -> None:
        """Elementwise limits, as numpy's clip; NaN stays NaN."""
        ops = self.harness.backend.ops

        @_moderate
        @given(_arrays())
        def check(array: npt.NDArray[Any]) -> None:
            tensor = self._tensor(array, dtype)
            clamped = ops.clamp(tensor, -4.0, 2.5)
            assert clamped.dtype == tensor.dtype
            expected = np.clip(ops.to_numpy(tensor), -4.0, 2.5)
            assert np.array_equal(ops.to_numpy(clamped), expected, equal_nan=True)

        check()

    def test_to_uint8(self, dtype: str) -> None:
        """Bit for bit: truncates toward zero, saturates, NaN is 0; on views with steps too."""
        ops = self.harness.backend.ops

        @_moderate
        @given(_arrays(), st.integers(1, 2))
        def check(array: npt.NDArray[Any], stride: int) -> None:
            tensor = self._tensor(array, dtype)[::stride]
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
        small = st.floats(-8, 8, width=16, allow_subnormal=False)

        @_moderate
        @given(st.data(), st.tuples(*[st.integers(1, 5)] * 4))
        def check(data: st.DataObject, sizes: tuple[int, int, int, int]) -> None:
            batch, i, k, j = sizes
            a = self._tensor(data.draw(_arrays((i, k), small)), dtype)
            b = self._tensor(data.draw(_arrays((batch, k, j), small)), dtype)
            product = ops.matmul(a, b)
            assert product.dtype == a.dtype
            wide_a = ops.to_numpy(a).astype(np.float64)
            wide_b = ops.to_numpy(b).astype(np.float64)
            error = np.abs(ops.to_numpy(product) - wide_a @ wide_b)
            bound = (k + 1) * EPSILON[dtype] * (np.abs(wide_a) @ np.abs(wide_b))
            # Products below the dtype's smallest normal number may vanish.
            assert (error <= bound + k * 2.0**-14 * EPSILON[dtype]).all()

        check()

    def test_arithmetic_and_indexing(self, dtype: str) -> None:
        """What the contract promises of a tensor itself: + - * / with tensors and numbers, on
        either side, reshape, slices with steps."""
        ops = self.harness.backend.ops
        array = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
        x = self._tensor(array, dtype)
        pairs = [
            (x + x, array + array),
            (x - 1, array - 1),
            (2.0 - x, 2.0 - array),
            (x * 0.5, array * 0.5),
            (0.5 * x, array * 0.5),
            (x / 4, array / 4),
            (12.0 / x[:1, :4:3], 12.0 / array[:1, :4:3]),
            (x.reshape((2, 6)), array.reshape(2, 6)),
            (x[1:, ::2], array[1:, ::2]),
            (x[0], array[0]),
        ]
        for tensor, expected in pairs:
            assert tensor.dtype == x.dtype
            assert tuple(tensor.shape) == expected.shape
            assert np.array_equal(ops.to_numpy(tensor).astype(np.float32), expected)

    def test_verbs_leave_their_arguments_alone(self, dtype: str) -> None:
        """No verb writes to the tensor that it is given."""
        ops = self.harness.backend.ops
        array = np.array([[-300.0, math.nan], [0.5, 300.0]], dtype=np.float32)
        tensor = self._tensor(array, dtype)
        ops.chunk(tensor, 2)
        ops.clamp(tensor, -1, 1)
        ops.to_uint8(tensor)
        ops.matmul(tensor, tensor)
        assert np.array_equal(ops.to_numpy(tensor), array.astype(dtype_of(dtype)), equal_nan=True)

    def test_repeat(self, dtype: str) -> None:
        """``backend.repeat(x, n)`` puts n copies one after another along axis 0."""
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        tensor = self._tensor(array, dtype)
        repeated = self.harness.backend.repeat(tensor, 3)
        assert repeated.dtype == tensor.dtype
        host = self.harness.backend.ops.to_numpy(repeated)
        assert np.array_equal(host, np.concatenate([array] * 3))


def dtype_of(name: str) -> npt.DTypeLike:
    """The numpy dtype in which ``to_numpy`` hands over a framework's dtype of that name."""
    return np.float32 if name == "bfloat16" else np.dtype(name)
