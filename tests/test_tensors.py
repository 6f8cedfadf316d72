"""unicb.tensors against numpy in float64: any shape, any dtype of the reference, any range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unicb import tensors
from unicb.testing._tensors import ROUNDING
from unicb_numpy import backend
from unicb_numpy.ops import NumpyOps, StrictTensor

OPS = backend.ops
DTYPES = ("float16", "float32", "float64")
#: What float16 has in full precision, and its squares have not.
VALUES = st.one_of(
    st.floats(2.0**-10, 60000, width=16), st.floats(-60000, -(2.0**-10), width=16), st.just(0.0)
)
#: Around the size of a block, and far from it: numpy draws these, as hypothesis is slow at it.
LONG = ((1, 127), (2, 128), (1, 129), (3, 257), (1, 16385), (2, 3, 1000))

_many = settings(max_examples=80, deadline=None, derandomize=True, database=None)


def _drawn(shape: tuple[int, ...], seed: int, size: float, spiked: bool) -> npt.NDArray[Any]:
    array = np.random.default_rng(seed).normal(size=shape) * size
    if spiked:
        array.reshape(-1)[seed % array.size] = 60000
    return array.astype(np.float16).astype(np.float64)


_short = hnp.arrays(np.float64, hnp.array_shapes(max_dims=4, max_side=6), elements=VALUES)
_long = st.builds(
    _drawn,
    st.sampled_from(LONG),
    st.integers(0, 1000),
    st.sampled_from([0.1, 1.0, 100.0, 9000.0]),
    st.booleans(),
)
_arrays = st.one_of(_short, _long)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[npt.NDArray[np.float64], str, int]:
    array = draw(_arrays)
    return array, draw(st.sampled_from(DTYPES)), draw(st.integers(0, array.ndim))


def _tensor(array: npt.NDArray[Any], dtype: str = "float32") -> StrictTensor:
    return StrictTensor(array.astype(dtype))


def _check(found: StrictTensor, dtype: str, expected: Any, share_of: Any) -> None:
    assert found.dtype == np.dtype(dtype)
    assert found.shape == expected.shape
    largest = float(np.finfo(dtype).max)
    error = np.abs(found.data.astype(np.float64) - expected)
    bound = ROUNDING[dtype] * share_of + 2.0**-23
    # What is out of range is infinite; at its edge, either.
    assert ((error <= bound) | (np.isinf(found.data) & (np.abs(expected) + bound > largest))).all()


@_many
@given(_cases())
def test_mean(case: tuple[Any, str, int]) -> None:
    array, dtype, kept = case
    axes = tuple(range(kept, array.ndim))
    sizes = np.abs(array).mean(axes, keepdims=True)
    expected = array.mean(axes, keepdims=True)
    _check(tensors.mean(OPS, _tensor(array, dtype), kept), dtype, expected, sizes)


@_many
@given(_cases())
def test_norm(case: tuple[Any, str, int]) -> None:
    array, dtype, kept = case
    norm = np.sqrt((array**2).sum(tuple(range(kept, array.ndim)), keepdims=True))
    with np.errstate(over="ignore"):
        _check(tensors.norm(OPS, _tensor(array, dtype), kept), dtype, norm, norm)


@_many
@given(_cases(), st.floats(-2, 2, width=16))
def test_std(case: tuple[Any, str, int], offset: float) -> None:
    array, dtype, kept = case
    held = (array / 4 + offset * 1000).astype(dtype).astype(np.float64)
    axes = tuple(range(kept, array.ndim))
    std = held.std(axes, keepdims=True)
    # Differences from the mean are rounded, too, where they are of another size than it.
    share_of = std + np.abs(held).max(axes, keepdims=True) * ROUNDING[dtype] / 8
    _check(tensors.std(OPS, _tensor(held, dtype), kept), dtype, std, share_of)


@_many
@given(_cases(), st.randoms(use_true_random=False))
def test_dot(case: tuple[Any, str, int], random: Any) -> None:
    array, dtype, kept = case
    mixed = array.reshape(-1).tolist()
    random.shuffle(mixed)
    other = (np.array(mixed).reshape(array.shape) / 4096).astype(dtype).astype(np.float64)
    axes = tuple(range(kept, array.ndim))
    norms = np.sqrt((array**2).sum(axes, keepdims=True) * (other**2).sum(axes, keepdims=True))
    x, y = _tensor(array, dtype), _tensor(other, dtype)
    count = array.size // int(np.prod(array.shape[:kept]))
    mean = (array * other).mean(axes, keepdims=True)
    # Elements that are small in float16 have fewer digits, and so has what is made of them.
    slack = norms + (np.abs(array).max() + 1) * count * 2.0**-14
    _check(tensors.dot(OPS, x, y, kept, average=True), dtype, mean, slack / count)
    if slack.max() < np.finfo(dtype).max:
        _check(tensors.dot(OPS, x, y, kept), dtype, mean * count, slack)


@_many
@given(_arrays, st.sampled_from(DTYPES), st.floats(0, 1, width=16))
def test_lerp_stays_between(array: Any, dtype: str, weight: float) -> None:
    one, other = _tensor(array, dtype), _tensor(array[::-1], dtype)
    blend = tensors.lerp(one, other, weight)
    assert blend.dtype == np.dtype(dtype)
    low, high = np.minimum(one.data, other.data), np.maximum(one.data, other.data)
    room = ROUNDING[dtype] * np.maximum(np.abs(low), np.abs(high)).astype(np.float64) + 2.0**-23
    wide = blend.data.astype(np.float64)
    assert ((wide >= low - room) & (wide <= high + room)).all()


def test_a_row_is_not_in_the_others() -> None:
    array = np.random.default_rng(5).normal(size=(3, 1000))
    array[1, 7] = np.nan
    array[2, 999] = np.inf
    for dtype in DTYPES:
        x = _tensor(array, dtype)
        alone = x[:1]
        for make in (tensors.mean, tensors.std, tensors.norm, _with_itself):
            with np.errstate(invalid="ignore"):
                found = make(OPS, x).data
            assert not np.isfinite(found[1:]).any()
            assert found[:1] == make(OPS, alone).data


def _with_itself(ops: Any, x: Any) -> Any:
    return tensors.dot(ops, x, x, average=True)


def test_sums_of_zeros_are_zero() -> None:
    x = _tensor(np.zeros((2, 3000)), "float16")
    for make in (tensors.mean, tensors.std, tensors.norm, _with_itself):
        assert (make(OPS, x).data == 0).all()


def test_nothing_waits_for_the_device() -> None:
    class Device(NumpyOps):
        def to_numpy(self, x: StrictTensor) -> Any:
            raise AssertionError("the host asks for a tensor")

        to_uint8 = to_numpy

    x = _tensor(np.ones((2, 300)), "float16")
    for make in (tensors.mean, tensors.std, tensors.norm, _with_itself):
        make(Device(), x)


@pytest.mark.parametrize("make", [tensors.mean, tensors.std, tensors.norm, _with_itself])
def test_other_elements_are_refused(make: Callable[..., Any]) -> None:
    for dtype in (np.int64, np.uint8, np.complex64, bool):
        with pytest.raises(TypeError, match=f"not one of dtype {np.dtype(dtype)}"):
            make(OPS, StrictTensor(np.ones((2, 3), dtype)))


@pytest.mark.parametrize("make", [tensors.mean, tensors.std, tensors.norm])
def test_what_cannot_be_combined_is_refused(make: Callable[..., Any]) -> None:
    x = _tensor(np.ones((2, 3)))
    for kept in (-1, 3):
        with pytest.raises(ValueError, match=rf"axes in 0\.\.2, not {kept}"):
            make(OPS, x, kept)
    with pytest.raises(ValueError, match=r"shape \(2, 0\) has no elements beyond its first 1 axes"):
        make(OPS, x[:, :0])
    assert make(OPS, x[:0]).shape == (0, 1)
    assert make(OPS, x, 2).shape == (2, 3)


def test_two_shapes_have_no_dot_product() -> None:
    x = _tensor(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"not \(2, 3\) and \(2, 1\)"):
        tensors.dot(OPS, x, x[:, :1])


def test_names_of_dtypes() -> None:
    assert [tensors.dtype_name(_tensor(np.ones(1), dtype)) for dtype in DTYPES] == [*DTYPES]
