"""Tensor contract: each operation has the properties that numpy's has."""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unicb.tensors import dtype_name
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


#: Drawn values may or may not include these; this does.
ALL_SPECIAL = np.array(SPECIAL + NOT_FINITE, dtype=np.float32)

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
        @example(ALL_SPECIAL)
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
            rounded = ops.to_numpy(self._tensor(given.copy(), dtype))
            assert np.array_equal(host, rounded, equal_nan=True)
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

    def test_concat(self, dtype: str) -> None:
        """Tensors one after another along axis 0, in the order given, dtype kept: one alone, empty
        ones, and one that is there several times."""
        ops = self.harness.backend.ops
        orders = st.lists(st.integers(0, 2), min_size=1, max_size=5)

        @_moderate
        @given(_arrays(), st.integers(0, 4), orders)
        @example(ALL_SPECIAL.reshape(3, 5), 1, [1, 0, 1])
        def check(array: npt.NDArray[Any], at: int, order: list[int]) -> None:
            whole = self._tensor(array, dtype)
            parts = [whole, whole[:at], whole[at:]]
            joined = ops.concat([parts[index] for index in order])
            assert joined.dtype == whole.dtype
            held = ops.to_numpy(whole)
            expected = np.concatenate([(held, held[:at], held[at:])[index] for index in order])
            assert tuple(joined.shape) == expected.shape
            assert np.array_equal(ops.to_numpy(joined), expected, equal_nan=True)

        check()

    @pytest.mark.parametrize(
        "shapes", [[(2, 5), (2, 4)], [(2, 5), (5,)], [(1, 3), (0,)], [(2, 1), (1, 3)], [()], []]
    )
    def test_concat_refuses_what_does_not_fit(self, shapes: list[tuple[int, ...]]) -> None:
        """ValueError that names the shapes when parts differ along another axis or in their number
        of axes, or have none; ValueError for no parts at all."""
        # Sliced, as not every framework makes a tensor of no elements.
        parts = [
            self._tensor(np.zeros([size + 1 for size in shape], np.float32), "float32")[
                tuple(slice(size) for size in shape)
            ]
            for shape in shapes
        ]
        said = self._refusal(parts)
        assert all(str(shape) in said for shape in shapes)

    def test_concat_refuses_another_dtype(self, dtype: str) -> None:
        """ValueError when the parts are of two dtypes, rather than the wider one for all."""
        x, others = np.zeros((1, 3), np.float32), {*self.harness.dtypes} - {dtype}
        for other in sorted(others):
            assert "(1, 3)" in self._refusal([self._tensor(x, dtype), self._tensor(x, other)])

    def _refusal(self, parts: list[Any]) -> str:
        """Return what concat says of parts that it must not join."""
        try:
            joined = self.harness.backend.ops.concat(parts)
        except ValueError as error:
            return str(error)
        raise AssertionError(f"concat made a tensor of shape {tuple(joined.shape)} of them")

    def test_clamp(self, dtype: str) -> None:
        """Elementwise limits, as numpy's clip; NaN stays NaN."""
        ops = self.harness.backend.ops

        @_moderate
        @given(_arrays())
        @example(ALL_SPECIAL)
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
        @example(ALL_SPECIAL, 1)
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
        small = st.floats(-8, 8, width=32, allow_subnormal=False)
        batches = st.sampled_from(
            [((), ()), ((), (2,)), ((3,), ()), ((3, 1), (2,)), ((2,), (3, 1))]
        )

        @_moderate
        @given(st.data(), batches, st.tuples(*[st.integers(1, 5)] * 3))
        def check(data: st.DataObject, batch: Any, sizes: tuple[int, int, int]) -> None:
            i, k, j = sizes
            a = self._tensor(data.draw(_arrays((*batch[0], i, k), small)), dtype)
            b = self._tensor(data.draw(_arrays((*batch[1], k, j), small)), dtype)
            product = ops.matmul(a, b)
            assert product.dtype == a.dtype
            assert tuple(product.shape) == (*np.broadcast_shapes(*batch), i, j)
            wide_a = ops.to_numpy(a).astype(np.float64)
            wide_b = ops.to_numpy(b).astype(np.float64)
            error = np.abs(ops.to_numpy(product) - wide_a @ wide_b)
            bound = (k + 1) * EPSILON[dtype] * (np.abs(wide_a) @ np.abs(wide_b))
            # Products below the dtype's smallest normal number may vanish.
            assert (error <= bound + k * 2.0**-14 * EPSILON[dtype]).all()

        check()

    def test_arithmetic_and_indexing(self, dtype: str) -> None:
        """Tensors themselves do what the contract promises: + - * / with tensors and numbers, on
        either side, reshape, swapaxes, slices with steps."""
        ops = self.harness.backend.ops
        array = np.arange(1, 13, dtype=np.float64).reshape(3, 4)
        x = self._tensor(array.astype(np.float32), dtype)
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
        x = self._tensor(array, dtype)
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

        @_moderate
        @given(_arrays(values=values), st.sampled_from(exponents))
        def check(array: npt.NDArray[Any], exponent: float) -> None:
            tensor = self._tensor(array, dtype)
            power = tensor**exponent
            assert power.dtype == tensor.dtype
            assert tuple(power.shape) == array.shape
            expected = ops.to_numpy(tensor).astype(np.float64) ** exponent
            error = np.abs(ops.to_numpy(power).astype(np.float64) - expected)
            assert (error <= 2 * EPSILON[dtype] * expected).all()

        check()
        special = self._tensor(np.array([-2.0, 0.0, math.nan], np.float32), dtype)
        for exponent, numbers in (
            (2, [4.0, 0.0, math.nan]),
            (3, [-8.0, 0.0, math.nan]),
            (-1, [-0.5, math.inf, math.nan]),
            (0.5, [math.nan, 0.0, math.nan]),
        ):
            assert np.array_equal(ops.to_numpy(special**exponent), numbers, equal_nan=True)

    def test_verbs_leave_their_arguments_alone(self, dtype: str) -> None:
        """No verb writes to the tensor that it is given."""
        ops = self.harness.backend.ops
        array = np.array([[-300.0, math.nan], [0.5, 300.0]], dtype=np.float32)
        tensor = self._tensor(array, dtype)
        ops.chunk(tensor, 2)
        ops.clamp(tensor, -1, 1)
        ops.to_uint8(tensor)
        ops.matmul(tensor, tensor)
        ops.concat([tensor, tensor])
        assert np.array_equal(ops.to_numpy(tensor), array.astype(dtype_of(dtype)), equal_nan=True)

    def test_empty_tensors(self, dtype: str) -> None:
        """A batch of no rows goes through every operation and stays one."""
        ops = self.harness.backend.ops
        empty = self._tensor(np.zeros((0, 3), np.float32), dtype)
        assert [tuple(part.shape) for part in ops.chunk(empty, 2)] == [(0, 3)] * 2
        assert tuple(ops.clamp(empty, 0, 1).shape) == (0, 3)
        assert ops.to_uint8(empty).shape == ops.to_numpy(empty).shape == (0, 3)
        assert tuple(ops.concat([empty, empty]).shape) == (0, 3)
        square = self._tensor(np.zeros((3, 3), np.float32), dtype)
        assert tuple(ops.matmul(empty, square).shape) == (0, 3)

    def test_subnormal_numbers(self, dtype: str) -> None:
        """The smallest numbers that float32 has are dark, and clamp leaves them or makes them 0."""
        ops = self.harness.backend.ops
        tiny = np.array([1, 0x80000001], dtype=np.uint32).view(np.float32)
        tensor = self._tensor(tiny, dtype)
        assert ops.to_uint8(tensor).tolist() == [0, 0]
        clamped = ops.to_numpy(ops.clamp(tensor, -4.0, 2.5)).astype(np.float64)
        assert (np.abs(clamped) <= 1.5e-45).all()

    def test_in_dtype(self, dtype: str) -> None:
        """A tensor in another floating dtype has its numbers, rounded to that; and back again the
        same bits, where the other is no narrower."""
        backend = self.harness.backend
        x = self._tensor(np.array([[0.1, -3.0, 250.7], [1e-3, 0.0, 7.3]]), dtype)
        host = backend.ops.to_numpy(x)
        wide = backend.in_dtype(x, "float32")
        assert dtype_name(wide) == "float32"
        np.testing.assert_array_equal(backend.ops.to_numpy(wide), host.astype(np.float32))
        back = backend.in_dtype(wide, x.dtype)
        assert dtype_name(back) == dtype_name(x)
        assert dtype_name(x) == dtype
        expected = host.astype(np.float32).astype(host.dtype)
        np.testing.assert_array_equal(backend.ops.to_numpy(back), expected)
        np.testing.assert_array_equal(backend.ops.to_numpy(x), host)

    def test_aside(self) -> None:
        """``backend.aside(work, tensors)`` gives, in any thread, what ``work`` makes of operations
        and of the tensors in their order; what ``work`` raises comes out, and the tensors are left
        alone."""
        backend = self.harness.backend
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        x, y = (self._tensor(numbers, "float32") for numbers in (array, array[:1]))

        def work(ops: Any, *tensors: Any) -> list[npt.NDArray[Any]]:
            return [ops.to_numpy(tensor * 2) for tensor in tensors]

        result = backend.aside(work, [x, y, x])
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(result).result()
        for numbers, expected in zip(made, (array, array[:1], array), strict=True):
            assert np.array_equal(numbers, expected * 2)
        assert np.array_equal(backend.ops.to_numpy(x), array)

        def fail(ops: Any, tensor: Any) -> None:
            raise LookupError("as planned")

        with pytest.raises(LookupError, match="as planned"):
            backend.aside(fail, [x])()

    def test_fork_rng(self) -> None:
        """Random numbers of the framework that are drawn within ``backend.fork_rng()`` are drawn
        again after it, and errors go through."""
        backend, drawn = self.harness.backend, []
        for _ in range(2):
            with backend.fork_rng():
                drawn.append(self.harness.draw())
        with pytest.raises(LookupError, match="drawn"), backend.fork_rng():
            raise LookupError("drawn", self.harness.draw())
        drawn.append(self.harness.draw())
        assert all(np.array_equal(numbers, drawn[0]) for numbers in drawn)


def dtype_of(name: str) -> npt.DTypeLike:
    """Return the numpy dtype in which ``to_numpy`` hands over a framework's dtype of that name."""
    return np.float32 if name == "bfloat16" else np.dtype(name)
