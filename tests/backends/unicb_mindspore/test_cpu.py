"""The CPU versions of MindSpore's kernels against numpy, and the switch that puts them in place."""

from __future__ import annotations

import inspect
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import mindspore as ms
import mindspore.mint.nn.functional as F
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Tensor, mint

from unicb_mindspore import cpu

NAMES = [kernel.name for kernel in cpu.KERNELS]
DTYPES = [(ms.float32, np.float32), (ms.float16, np.float16)]
RNG = np.random.default_rng(0)
#: What exponentials and sums of float32 may be off by, of numbers up to a few units.
ROUNDED = 1e-5


@pytest.fixture(autouse=True)
def enabled() -> Iterator[tuple[str, ...]]:
    names = cpu.enable_cpu()
    yield names
    # The tests that follow need all of them, and probing takes long.
    if cpu.enable_cpu() != names:
        cpu.disable_cpu()
        cpu.enable_cpu()


# --- tools


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    """Whichever tests a worker has run before, a test draws the same."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def draw(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def same(got: Any, want: Any, tolerance: float = 2e-6) -> None:
    """Compare a tensor with numpy: shape and type as well as the values."""
    assert isinstance(got, Tensor)
    array, want = got.asnumpy(), np.asarray(want)
    assert array.shape == want.shape
    assert array.dtype == want.dtype
    if want.dtype == np.float16:
        tolerance = max(tolerance, 2e-3)
    wide = want.astype(np.float64) if want.dtype.kind == "f" else want
    np.testing.assert_allclose(array, wide, rtol=tolerance, atol=tolerance)


def same_parts(got: Any, want: Any) -> None:
    assert isinstance(got, tuple)
    for one, other in zip(got, want, strict=True):
        same(one, other)


def in_each_type(check: Callable[[Any, Any], None]) -> None:
    for dtype, np_dtype in DTYPES:
        check(dtype, np_dtype)


CHECKS: dict[str, Callable[[], None]] = {}


def checks(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register the check of one kernel; the function is not a test by itself."""

    def register(check: Callable[[], None]) -> Callable[[], None]:
        assert name not in CHECKS
        CHECKS[name] = check
        return check

    return register


@pytest.mark.parametrize("name", NAMES)
def test_kernel_gives_what_numpy_gives(name: str) -> None:
    CHECKS[name]()


def test_every_kernel_has_a_check_and_every_check_a_kernel() -> None:
    assert set(CHECKS) == set(NAMES)
    assert len(NAMES) == len(set(NAMES))


# --- creating


@checks("mint.arange")
def check_arange() -> None:
    same(mint.arange(5), np.arange(5))
    same(mint.arange(2, 9, 3), np.arange(2, 9, 3))
    same(mint.arange(5, 0, -2), np.arange(5, 0, -2))
    same(mint.arange(0.0, 1.0, 0.25), np.arange(0.0, 1.0, 0.25, dtype=np.float32))
    same(mint.arange(3, dtype=ms.float16), np.arange(3, dtype=np.float16))
    same(mint.arange(Tensor(4, ms.int32)), np.arange(4))
    same(mint.arange(4, 4), np.arange(0))
    same(mint.arange(1_200_000)[-1:], np.array([1_199_999]))


@checks("mint.linspace")
def check_linspace() -> None:
    same(mint.linspace(0, 1, 5), np.linspace(0, 1, 5, dtype=np.float32))
    same(mint.linspace(Tensor(3.0), -1.0, 1), np.array([3], np.float32))
    same(mint.linspace(0, 4, 5, dtype=ms.int64), np.arange(5))
    same(mint.linspace(0, 1, 3, dtype=ms.float16), np.array([0, 0.5, 1], np.float16))


@checks("mint.full")
def check_full() -> None:
    same(mint.full((2, 3), 1.5), np.full((2, 3), 1.5, np.float32))
    same(mint.full(3, 2), np.full(3, 2))
    same(mint.full([2], True), np.full(2, True))
    same(mint.full((), -math.inf), np.array(-np.inf, np.float32))
    same(mint.full((2,), Tensor(3.0), dtype=ms.float16), np.full(2, 3, np.float16))


@checks("mint.full_like")
def check_full_like() -> None:
    x = Tensor(draw(2, 1), ms.float16)
    same(mint.full_like(x, 2), np.full((2, 1), 2, np.float16))
    same(mint.full_like(x, True, dtype=ms.bool_), np.full((2, 1), True))


def _check_like(make: Any, value: int) -> None:
    for shape in ((), (3,), (2, 0), (1, 2, 3)):
        x = Tensor(np.full(shape, 7), ms.float16)
        same(make(x), np.full(shape, value, np.float16))
        same(make(x, dtype=ms.int64), np.full(shape, value))
    same(make(Tensor([True])), np.full(1, bool(value)))


@checks("mint.zeros_like")
def check_zeros_like() -> None:
    _check_like(mint.zeros_like, 0)


@checks("mint.ones_like")
def check_ones_like() -> None:
    _check_like(mint.ones_like, 1)


@checks("mint.empty")
def check_empty() -> None:
    for made in (mint.empty(2, 3), mint.empty((2, 3)), mint.empty([2, 3])):
        same(made, np.zeros((2, 3), np.float32))
    same(mint.empty((2,), dtype=ms.int32), np.zeros(2, np.int32))


@checks("mint.empty_like")
def check_empty_like() -> None:
    _check_like(mint.empty_like, 0)


def _check_clone(clone: Any) -> None:
    for array in (draw(2, 3), np.arange(3), np.array([True]), np.float16([1.5])):
        x = Tensor(array)
        copy = clone(x)
        same(copy, array, 0.0)
        x[0] = 0
        same(copy, array, 0.0)


@checks("mint.clone")
def check_clone() -> None:
    _check_clone(mint.clone)
    assert not isinstance(mint.clone(ms.Parameter(Tensor([1.0]))), ms.Parameter)


@checks("Tensor.clone")
def check_method_clone() -> None:
    _check_clone(lambda x: x.clone())


# --- random numbers


def _follows_the_generator(sample: Callable[..., Any]) -> None:
    one, two = ms.Generator().manual_seed(7), ms.Generator().manual_seed(7)
    first, second = sample(generator=one).asnumpy(), sample(generator=one).asnumpy()
    assert (first != second).any()
    np.testing.assert_array_equal(first, sample(generator=two).asnumpy())
    state = one.get_state()
    third = sample(generator=one).asnumpy()
    one.set_state(state)
    np.testing.assert_array_equal(third, sample(generator=one).asnumpy())


def _follows_the_default_generator(sample: Callable[[], Any]) -> None:
    ms.manual_seed(3)
    first, second = sample().asnumpy(), sample().asnumpy()
    assert (first != second).any()
    ms.manual_seed(3)
    np.testing.assert_array_equal(first, sample().asnumpy())


def _is_standard_normal(x: Any) -> None:
    values = x.asnumpy().astype(np.float64)
    assert abs(values.mean()) < 0.05
    assert abs(values.std() - 1) < 0.05


def _is_uniform(x: Any) -> None:
    values = x.asnumpy().astype(np.float64)
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.02
    assert abs(values.std() - math.sqrt(1 / 12)) < 0.02


@checks("mint.randn")
def check_randn() -> None:
    _is_standard_normal(mint.randn(100, 100))
    assert mint.randn((2, 3), dtype=ms.float16).dtype == ms.float16
    assert mint.randn([2, 3]).shape == mint.randn(2, 3).shape == (2, 3)
    assert mint.randn(2).dtype == ms.float32
    _follows_the_generator(lambda generator: mint.randn(8, generator=generator))
    _follows_the_default_generator(lambda: mint.randn(8))


@checks("mint.randn_like")
def check_randn_like() -> None:
    x = Tensor(np.zeros((100, 100)), ms.float16)
    _is_standard_normal(mint.randn_like(x))
    assert mint.randn_like(x).dtype == ms.float16
    assert mint.randn_like(x, dtype=ms.float32).dtype == ms.float32
    _follows_the_default_generator(lambda: mint.randn_like(x))


@checks("mint.rand")
def check_rand() -> None:
    for dtype in (ms.float16, ms.float32, ms.float64):
        sample = mint.rand(100, 100, dtype=dtype)
        assert sample.dtype == dtype
        _is_uniform(sample)
    assert mint.rand((2, 3)).shape == mint.rand(2, 3).shape == (2, 3)
    _follows_the_generator(lambda generator: mint.rand(8, generator=generator))
    _follows_the_default_generator(lambda: mint.rand(8))


@checks("mint.rand_like")
def check_rand_like() -> None:
    x = Tensor(np.zeros((100, 100)), ms.float16)
    _is_uniform(mint.rand_like(x))
    assert mint.rand_like(x).dtype == ms.float16
    assert mint.rand_like(x, dtype=ms.float32).dtype == ms.float32
    _follows_the_default_generator(lambda: mint.rand_like(x))


@checks("mint.normal")
def check_normal() -> None:
    _is_standard_normal((mint.normal(3.0, 2.0, (100, 100)) - 3) / 2)
    mean, std = Tensor(np.full((50, 1), 5.0, np.float32)), Tensor(np.full(200, 2.0, np.float32))
    assert mint.normal(mean, std).shape == (50, 200)
    _is_standard_normal((mint.normal(mean, std) - mean) / std)
    assert mint.normal(mean, 0.5).shape == (50, 1)
    assert mint.normal(0.0, std).shape == (200,)
    same(mint.normal(4.0, 0.0, (2,)), np.full(2, 4, np.float32))
    _follows_the_generator(lambda generator: mint.normal(size=(8,), generator=generator))
    _follows_the_default_generator(lambda: mint.normal(size=(8,)))


@checks("mint.randint")
def check_randint() -> None:
    sample = mint.randint(-2, 3, (1000,))
    assert sample.dtype == ms.int64
    assert set(sample.asnumpy().tolist()) == {-2, -1, 0, 1, 2}
    assert set(mint.randint(2, (100,)).asnumpy().tolist()) == {0, 1}
    assert mint.randint(0, 5, (2, 3), dtype=ms.int32).dtype == ms.int32
    _follows_the_generator(lambda generator: mint.randint(99, (8,), generator=generator))
    _follows_the_default_generator(lambda: mint.randint(99, (8,)))


@checks("Tensor.uniform")
def check_method_uniform() -> None:
    for dtype in (ms.float16, ms.float32):
        x = Tensor(np.full((100, 100), 7), dtype)
        sample = x.uniform(-3.0, 1.0)
        assert sample.dtype == dtype
        _is_uniform((sample.astype(ms.float32) + 3) / 4)
        same(x, np.full((100, 100), 7, x.asnumpy().dtype))
    x = Tensor(np.zeros(8, np.float32))
    _is_uniform(Tensor(np.zeros((100, 100), np.float32)).uniform())
    with pytest.raises(ValueError, match="from 2 up to 1"):
        x.uniform(2, 1)
    _follows_the_generator(lambda generator: x.uniform(0, 1, generator))
    _follows_the_default_generator(lambda: x.uniform())


@checks("Tensor.uniform_")
def check_method_uniform_() -> None:
    x = Tensor(np.zeros((100, 100), np.float32))
    assert x.uniform_(2, 4) is x
    _is_uniform((x - 2) / 2)
    few = Tensor(np.zeros(8, np.float32))
    _follows_the_generator(lambda generator: mint.clone(few.uniform_(generator=generator)))
    _follows_the_default_generator(lambda: mint.clone(few.uniform_()))


@checks("mint.multinomial")
def check_multinomial() -> None:
    weights = np.array([[1, 0, 3], [0, 2, 0]], np.float32)
    sample = mint.multinomial(Tensor(weights), 10_000, True)
    assert sample.dtype == ms.int64
    shares = [np.bincount(row, minlength=3) / 10_000 for row in sample.asnumpy()]
    np.testing.assert_allclose(shares, [[0.25, 0, 0.75], [0, 1, 0]], atol=0.03)
    each = mint.multinomial(Tensor(np.ones(9), ms.float16), 9)
    same(mint.sort(each)[0], np.arange(9))
    many = Tensor(np.ones((8, 9), np.float32))
    _follows_the_generator(lambda generator: mint.multinomial(many, 1, generator=generator))
    _follows_the_default_generator(lambda: mint.multinomial(many, 1))


def test_set_seed_decides_where_the_default_generator_has_no_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unicb_mindspore._kernels._has_own_seed", lambda: False)
    monkeypatch.setattr(sys.modules["mindspore.common.seed"], "_GLOBAL_SEED", None)
    ms.set_seed(11)
    first, second = mint.randn(8).asnumpy(), mint.randn(8).asnumpy()
    assert (first != second).any()
    ms.set_seed(11)
    np.testing.assert_array_equal(first, mint.randn(8).asnumpy())


def test_a_manual_seed_wins_over_set_seed() -> None:
    ms.manual_seed(5)
    first = mint.randn(8).asnumpy()
    ms.set_seed(1)
    ms.manual_seed(5)
    np.testing.assert_array_equal(first, mint.randn(8).asnumpy())


# --- shapes and selections


@checks("mint.stack")
def check_stack() -> None:
    parts = [draw(2, 3) for _ in range(3)]
    for dim in (0, 1, 2, -1, -3):
        same(mint.stack([Tensor(p) for p in parts], dim), np.stack(parts, dim))
        same(mint.stack(tuple(Tensor(p) for p in parts), dim=dim), np.stack(parts, dim))
    same(mint.stack([Tensor(1), Tensor(2)]), np.array([1, 2]))


@checks("mint.narrow")
def check_narrow() -> None:
    x = draw(3, 5)
    same(mint.narrow(Tensor(x), 1, 1, 3), x[:, 1:4])
    same(mint.narrow(Tensor(x), -2, 2, 1), x[2:])
    same(mint.narrow(Tensor(x), 1, -2, 2), x[:, -2:])
    with pytest.raises(ValueError, match="cannot take 4 from 2"):
        mint.narrow(Tensor(x), 1, 2, 4)
    with pytest.raises(ValueError, match="out of range"):
        mint.narrow(Tensor(x), 2, 0, 1)


@checks("mint.split")
def check_split() -> None:
    x = draw(4, 5)
    for size, dim in itertools.product((1, 2, 3, 5, 9), (0, 1, -1)):
        length = x.shape[dim]
        want = np.split(x, range(size, length, size), dim)
        same_parts(mint.split(Tensor(x), size, dim), want)
    same_parts(mint.split(Tensor(x), [1, 0, 4], dim=1), np.split(x, [1, 1], 1))
    same_parts(mint.split(Tensor(x), (3, 1)), np.split(x, [3]))
    with pytest.raises(ValueError, match="do not add up to 4"):
        mint.split(Tensor(x), [1, 1])
    with pytest.raises(ValueError, match="positive"):
        mint.split(Tensor(x), 0)


@checks("mint.unbind")
def check_unbind() -> None:
    x = draw(2, 3, 4)
    for dim in (0, 1, 2, -1, -2):
        same_parts(mint.unbind(Tensor(x), dim), list(np.moveaxis(x, dim, 0)))


@checks("mint.flatten")
def check_flatten() -> None:
    x = draw(2, 3, 4)
    same(mint.flatten(Tensor(x)), x.reshape(-1))
    same(mint.flatten(Tensor(x), 1), x.reshape(2, 12))
    same(mint.flatten(Tensor(x), -3, -2), x.reshape(6, 4))
    same(mint.flatten(Tensor(x), 1, 1), x)
    same(mint.flatten(Tensor(1.5)), np.array([1.5], np.float32))
    with pytest.raises(ValueError, match="comes after"):
        mint.flatten(Tensor(x), 2, 1)


def _check_repeat_interleave(repeat: Any) -> None:
    x = draw(2, 3)
    for dim, axis in ((0, 0), (1, 1), (-1, 1), (None, None)):
        same(repeat(Tensor(x), 2, dim), np.repeat(x, 2, axis))
    same(repeat(Tensor(x), Tensor([1, 3]), 0), np.repeat(x, [1, 3], 0))
    same(repeat(Tensor(np.arange(3)), 2, 0), np.repeat(np.arange(3), 2))


@checks("mint.repeat_interleave")
def check_repeat_interleave() -> None:
    _check_repeat_interleave(mint.repeat_interleave)
    same(
        mint.repeat_interleave(Tensor([True, False]), 2, dim=0, output_size=4),
        [True, True, False, False],
    )


@checks("Tensor.repeat_interleave")
def check_method_repeat_interleave() -> None:
    _check_repeat_interleave(lambda x, repeats, dim: x.repeat_interleave(repeats, dim))
    x = draw(2, 3)
    same(Tensor(x).repeat_interleave(2, dim=1, output_size=6), np.repeat(x, 2, 1))


@checks("mint.index_select")
def check_index_select() -> None:
    x = draw(3, 4)
    for dtype, dim in itertools.product((ms.int32, ms.int64), (0, 1, -1)):
        same(mint.index_select(Tensor(x), dim, Tensor([2, 0, 2], dtype)), x.take([2, 0, 2], dim))


@checks("Tensor.repeat")
def check_method_repeat() -> None:
    x = draw(2, 3)
    same(Tensor(x).repeat(2, 1), np.tile(x, (2, 1)))
    same(Tensor(x).repeat((3, 1, 2)), np.tile(x, (3, 1, 2)))
    same(Tensor(x[0]).half().repeat(4), np.tile(x[0].astype(np.float16), 4))
    with pytest.raises(ValueError, match="each of 2 axes"):
        Tensor(x).repeat(2)


def _check_roll(roll: Any) -> None:
    x = draw(3, 4)
    for shifts, dims in ((1, 0), (-2, -1), ((1, 2), (0, 1)), (5, None)):
        same(roll(Tensor(x), shifts, dims), np.roll(x, shifts, dims))


@checks("mint.roll")
def check_roll() -> None:
    _check_roll(mint.roll)
    same(mint.roll(Tensor([1, 2, 3]), 1), np.array([3, 1, 2]))


@checks("Tensor.roll")
def check_method_roll() -> None:
    _check_roll(lambda x, shifts, dims: x.roll(shifts, dims))


@checks("mint.tril")
def check_tril() -> None:
    x = draw(2, 3, 4)
    for diagonal in (-1, 0, 2):
        same(mint.tril(Tensor(x), diagonal), np.tril(x, diagonal))
    same(mint.tril(Tensor(np.ones((3, 3), bool))), np.tri(3, dtype=bool))


@checks("Tensor.clamp_")
def check_method_clamp_() -> None:
    for _, np_dtype in DTYPES:
        x = draw(2, 3).astype(np_dtype)
        clipped = Tensor(x.copy())
        assert clipped.clamp_(min=-0.5, max=0.5) is clipped
        same(clipped, np.clip(x, np_dtype(-0.5), np_dtype(0.5)))
        same(Tensor(x.copy()).clamp_(0), np.maximum(x, np_dtype(0)))
        same(Tensor(x.copy()).clamp_(max=Tensor(0.25)), np.minimum(x, np_dtype(0.25)))
    same(Tensor([1, 5]).clamp_(max=3), np.array([1, 3]))
    with pytest.raises(ValueError, match="at least one"):
        Tensor(draw(2)).clamp_()


@checks("Tensor.masked_fill_")
def check_method_masked_fill_() -> None:
    x = draw(2, 3)
    filled = Tensor(x.copy())
    returned = filled.masked_fill_(Tensor(x > 0), -math.inf)
    assert returned is filled
    same(filled, np.where(x > 0, -np.inf, x).astype(np.float32))
    assert Tensor(1.0).masked_fill_(Tensor(True), 3.0).asnumpy() == 3
    base = Tensor(np.zeros((2, 2), np.float32))
    base[0].masked_fill_(Tensor([True, False]), 5.0)
    same(base, np.array([[5, 0], [0, 0]], np.float32))


@checks("Tensor.zero_")
def check_method_zero_() -> None:
    for x in (Tensor(draw(2, 3)), Tensor([1, 2]), Tensor(1.5).half()):
        assert x.zero_() is x
        same(x, np.zeros(x.shape, x.asnumpy().dtype))
    weight = ms.Parameter(Tensor(draw(2)))
    weight.data.zero_()
    same(weight, np.zeros(2, np.float32))


@checks("Tensor.normal_")
def check_method_normal_() -> None:
    x = Tensor(np.zeros((100, 100)), ms.float16)
    assert x.normal_(3, 2) is x
    assert x.dtype == ms.float16
    _is_standard_normal((x - 3) / 2)
    weight = ms.Parameter(Tensor(np.zeros((100, 100), np.float32)))
    weight.data.normal_()
    _is_standard_normal(weight)
    _follows_the_generator(lambda generator: Tensor(draw(8)).normal_(generator=generator))
    _follows_the_default_generator(lambda: Tensor(draw(8)).normal_())


def _check_nonzero(nonzero: Any) -> None:
    x = np.array([[0, 1, 2], [3, 0, 0]])
    for array in (x, x.astype(np.float32), x > 0, x * 0):
        same_parts(nonzero(Tensor(array), as_tuple=True), np.nonzero(array))
        same(nonzero(Tensor(array)), np.argwhere(array))


@checks("mint.nonzero")
def check_nonzero() -> None:
    _check_nonzero(mint.nonzero)


@checks("Tensor.nonzero")
def check_method_nonzero() -> None:
    _check_nonzero(lambda x, **options: x.nonzero(**options))


def _along(axis: int, index: Any, ndim: int) -> Any:
    """Yield the places that an index names along one axis, and where the index names them."""
    for at in np.ndindex(index.shape):
        assert len(at) == ndim
        yield (*at[:axis], int(index[at]), *at[axis + 1 :]), at


@checks("Tensor.scatter_")
def check_method_scatter_() -> None:
    index = np.array([[2, 0], [1, -1]])
    for dim, (dtype, np_dtype) in itertools.product((0, 1, -1), DTYPES):
        x, src = draw(3, 3).astype(np_dtype), draw(2, 3).astype(np_dtype)
        put, value, added, times = (x.copy() for _ in range(4))
        for place, at in _along(dim % 2, index, 2):
            put[place], value[place] = src[at], 1.5
            added[place] += src[at]
            times[place] *= 2
        i = Tensor(index, ms.int32)
        target = Tensor(x)
        assert target.scatter_(dim, i, Tensor(src)) is target
        same(target, put)
        same(Tensor(x).scatter_(dim, i, 1.5), value)
        same(Tensor(x).scatter_(dim, i, value=1.5), value)
        same(Tensor(x).scatter_(dim, index=i, src=Tensor(src), reduce="add"), added)
        same(Tensor(x).scatter_(dim, i, 2, reduce="multiply"), times)
        assert target.dtype == dtype
    same(Tensor([0, 0, 0]).scatter_(0, Tensor([2, 0]), 1), np.array([1, 0, 1]))
    same(Tensor([False, False]).scatter_(0, Tensor([1]), True), np.array([False, True]))
    base = Tensor(np.zeros((2, 2), np.float32))
    base[:, 1].scatter_(0, Tensor([0]), 3.0)
    same(base, np.array([[0, 3], [0, 0]], np.float32))
    same(base.scatter_(0, Tensor(np.zeros((0,), np.int64)), 1.0), base.asnumpy())
    with pytest.raises(ValueError, match="exactly one"):
        base.scatter_(0, Tensor([[0]]))
    with pytest.raises(ValueError, match="not 'mean'"):
        base.scatter_(0, Tensor([[0]]), 1.0, reduce="mean")
    _check_scatter_errors(lambda x, *arguments: x.scatter_(*arguments))


@checks("Tensor.scatter_add_")
def check_method_scatter_add_() -> None:
    index = np.array([[2, 2], [0, 2]])
    for dim, (_, np_dtype) in itertools.product((0, 1, -2), DTYPES):
        x, src = draw(3, 3).astype(np_dtype), draw(2, 2).astype(np_dtype)
        want = x.copy()
        for place, at in _along(dim % 2, index, 2):
            want[place] += src[at]
        target = Tensor(x)
        assert target.scatter_add_(dim, Tensor(index), Tensor(src)) is target
        same(target, want)
    many = Tensor(np.zeros(1, np.float16))
    many.scatter_add_(0, Tensor(np.zeros(3000, np.int64)), Tensor(np.ones(3000), ms.float16))
    same(many, np.array([3000], np.float16))
    counts = Tensor([0, 0]).scatter_add_(0, Tensor([1, 1]), Tensor([2, 3]))
    same(counts, np.array([0, 5]))
    _check_scatter_errors(lambda x, *arguments: x.scatter_add_(*arguments))


def _check_scatter_errors(scatter: Any) -> None:
    x, src = Tensor(draw(2, 2)), Tensor(draw(2, 2))
    before = x.asnumpy().copy()
    with pytest.raises(ValueError, match="does not fit"):
        scatter(x, 0, Tensor([0]), src)
    with pytest.raises(ValueError, match="do not fill"):
        scatter(x, 0, Tensor([[0], [0], [1]]), src)
    with pytest.raises(ValueError, match="out of range"):
        scatter(x, 2, Tensor([[0]]), src)
    with pytest.raises(IndexError):
        scatter(x, 0, Tensor([[2]]), src)
    same(x, before, 0.0)


# --- order and compare

TIES = np.array([[2, 1, 2, 0], [5, 5, -1, 5]], np.float32)


@checks("mint.sort")
def check_sort() -> None:
    for dim in (0, 1, -1):
        order = np.argsort(TIES, dim, kind="stable")
        same_parts(mint.sort(Tensor(TIES), dim=dim), (np.sort(TIES, dim), order))
    values, order = mint.sort(Tensor(TIES), descending=True)
    same(values, -np.sort(-TIES))
    same(order, np.argsort(-TIES, kind="stable"))


@checks("mint.argsort")
def check_argsort() -> None:
    for dim in (0, 1, -1):
        same(mint.argsort(Tensor(TIES), dim), np.argsort(TIES, dim, kind="stable"))
    same(mint.argsort(Tensor(TIES), descending=True), np.argsort(-TIES, kind="stable"))


@checks("mint.topk")
def check_topk() -> None:
    order = np.argsort(-TIES, kind="stable")[:, :2]
    same_parts(mint.topk(Tensor(TIES), 2), (np.take_along_axis(TIES, order, 1), order))
    values, where = mint.topk(Tensor(TIES), 1, dim=0, largest=False)
    same(values, TIES.min(0, keepdims=True))
    same(where, TIES.argmin(0, keepdims=True))


def _check_arg(pick: Any, reference: Any) -> None:
    same(pick(Tensor(TIES)), reference(TIES))
    for dim, keep in itertools.product((0, 1, -1), (True, False)):
        same(pick(Tensor(TIES), dim, keep), reference(TIES, dim, keepdims=keep))
    same(pick(Tensor(TIES, ms.int32), dim=1), reference(TIES, 1))


@checks("mint.median")
def check_median() -> None:
    x = draw(3, 4, 5)
    for dim, (_, np_dtype) in itertools.product((0, 1, 2, -1), DTYPES):
        array = x.astype(np_dtype)
        order = np.argsort(array, dim, kind="stable")
        at = order.take([(array.shape[dim] - 1) // 2], dim)
        values = np.take_along_axis(array, at, dim)
        same_parts(mint.median(Tensor(array), dim, True), (values, at))
        same_parts(mint.median(Tensor(array), dim), (values.squeeze(dim), at.squeeze(dim)))
    same(mint.median(Tensor(x)), np.sort(x, None)[29])
    same(mint.median(Tensor([4, 1, 3, 2])), np.array(2))


@checks("mint.argmax")
def check_argmax() -> None:
    _check_arg(mint.argmax, np.argmax)


@checks("mint.argmin")
def check_argmin() -> None:
    _check_arg(mint.argmin, np.argmin)


@checks("mint.unique")
def check_unique() -> None:
    x = np.array([[3, 1, 3], [2, 3, 1]])
    same(mint.unique(Tensor(x)), np.array([1, 2, 3]))
    same(mint.unique(Tensor(x[0].astype(np.float16))), np.float16([1, 3]))
    want = (np.array([1, 2, 3]), np.array([[2, 0, 2], [1, 2, 0]]), np.array([2, 1, 3]))
    same_parts(mint.unique(Tensor(x), return_inverse=True, return_counts=True), want)
    same_parts(mint.unique(Tensor(x), return_counts=True), want[::2])
    rows = np.array([[1, 0], [0, 1], [1, 0]])
    want = (np.array([[0, 1], [1, 0]]), np.array([1, 0, 1]))
    same_parts(mint.unique(Tensor(rows), return_inverse=True, dim=0), want)


@checks("mint.equal")
def check_equal() -> None:
    x = Tensor([1.0, 2.0])
    assert mint.equal(x, Tensor([1.0, 2.0])) is True
    assert mint.equal(x, Tensor([1.0, 2.5])) is False
    assert mint.equal(x, Tensor([[1.0, 2.0]])) is False
    assert mint.equal(Tensor([math.nan]), Tensor([math.nan])) is False


# --- sums and deviations


@checks("mint.cumsum")
def check_cumsum() -> None:
    x = draw(2, 3)
    for dim in (0, 1, -1):
        same(mint.cumsum(Tensor(x), dim), np.cumsum(x, dim, dtype=np.float32))
    same(mint.cumsum(Tensor(x).half(), 0), np.cumsum(x.astype(np.float16), 0))
    same(mint.cumsum(Tensor([1, 2, 3], ms.int32), 0), np.array([1, 3, 6]))
    same(mint.cumsum(Tensor([True, False, True]), 0), np.array([1, 1, 2]))
    want = np.array([1, 3], np.float32)
    same(mint.cumsum(Tensor([1, 2]), dim=0, dtype=ms.float32), want)


@checks("mint.diff")
def check_diff() -> None:
    x = draw(3, 5)
    for n, dim in itertools.product((1, 2), (0, 1, -1)):
        same(mint.diff(Tensor(x), n, dim), np.diff(x, n, dim))
    edge = np.zeros((3, 1), np.float32)
    got = mint.diff(Tensor(x), prepend=Tensor(edge), append=Tensor(edge))
    same(got, np.diff(x, prepend=edge, append=edge))
    same(mint.diff(Tensor([True, False, False])), np.array([True, False]))


def _check_deviation(deviation: Any, reference: Any) -> None:
    x = draw(2, 3, 4)

    def check(dtype: Any, np_dtype: Any) -> None:
        cases = itertools.product((None, 0, -1, (0, 2), [-1, 1]), (True, False), (0, 1, 2))
        for dim, keep, ddof in cases:
            axis = tuple(dim) if isinstance(dim, list) else dim
            half = x.astype(np_dtype)
            with np.errstate(all="ignore"):
                count = x.size if axis is None else np.prod(np.take(x.shape, axis))
                if count <= ddof:
                    continue
                want = reference(half.astype(np.float64), axis, ddof=ddof, keepdims=keep)
            got = deviation(Tensor(half), dim, correction=ddof, keepdim=keep)
            same(got, np.asarray(want, np_dtype))

    in_each_type(check)
    assert np.isnan(deviation(Tensor([1.0])).asnumpy())


@checks("mint.var")
def check_var() -> None:
    _check_deviation(mint.var, np.var)


@checks("mint.std")
def check_std() -> None:
    _check_deviation(mint.std, np.std)
    large = Tensor(np.float16([300, -300, 300, -300]))
    same(mint.std(large, correction=0), np.float16(300))


def _check_spread(method: str, want: Any) -> None:
    x = draw(3, 4, 5)

    def spread(**options: Any) -> Any:
        return getattr(Tensor(x), method)(**options)

    for dim in (0, (1, 2), [1, 2], -1, None):
        axis = tuple(dim) if isinstance(dim, list) else dim
        for keep in (False, True):
            got = spread(dim=dim, keepdim=keep)
            same(got, want(x, axis, ddof=1, keepdims=keep), 1e-5)
            same(spread(axis=dim, keepdims=keep), want(x, axis, keepdims=keep), 1e-5)
        same(spread(dim=dim, correction=0), want(x, axis), 1e-5)
        same(spread(axis=dim, ddof=1), want(x, axis, ddof=1), 1e-5)
    same(spread(), want(x), 1e-5)
    same(spread(correction=1), want(x, ddof=1), 1e-5)
    same(getattr(Tensor(x), method)(1, 1, True), want(x, 1, ddof=1, keepdims=True), 1e-5)
    half = getattr(Tensor(x * 100).half(), method)(dim=[1, 2])
    assert half.dtype == ms.float16
    if method == "std":
        np.testing.assert_allclose(half.asnumpy(), want(x * 100, (1, 2), ddof=1), 2e-3)
    same(getattr(Tensor([1, 3]), method)(dim=0), want(np.float32([1, 3]), ddof=1))
    with pytest.raises(TypeError, match="or else"):
        spread(dim=0, keepdims=True)


@checks("Tensor.std")
def check_method_std() -> None:
    _check_spread("std", np.std)


@checks("Tensor.var")
def check_method_var() -> None:
    _check_spread("var", np.var)


@checks("mint.norm")
def check_norm() -> None:
    x = draw(3, 4)
    for p, dim, keep in itertools.product((0, 1, 2, 3.5, math.inf, -math.inf), (0, -1), (0, 1)):
        want = np.linalg.norm(x, p, dim, keepdims=bool(keep)).astype(np.float32)
        same(mint.norm(Tensor(x), p, dim, bool(keep)), want, 1e-5)
    same(mint.norm(Tensor(x)), np.linalg.norm(x))
    same(mint.norm(Tensor(x), dim=(0, 1), keepdim=True), np.linalg.norm(x, keepdims=True))
    same(mint.norm(Tensor(x), "nuc"), np.linalg.norm(x, "nuc"))
    half = np.float16([300, 400])
    same(mint.norm(Tensor(half)), np.float16(500))
    same(mint.norm(Tensor(half), dtype=ms.float32), np.float32(500))
    same(mint.norm(Tensor(2.0), 2), np.float32(2))
    with pytest.raises(ValueError, match='"fro"'):
        mint.norm(Tensor(x), "max")


@checks("mint.linalg.vector_norm")
def check_vector_norm() -> None:
    x = draw(3, 4)
    for p, dim in itertools.product((0, 1, 2, 3.5, math.inf), (0, -1)):
        want = np.linalg.norm(x, p, dim, keepdims=True).astype(np.float32)
        same(mint.linalg.vector_norm(Tensor(x), p, dim, True), want, 1e-5)
    same(mint.linalg.vector_norm(Tensor(x)), np.linalg.norm(x))
    half = Tensor(np.float16([300, 400]))
    same(mint.linalg.vector_norm(half, dim=-1), np.float16(500))
    same(mint.linalg.vector_norm(half, dim=-1, dtype=ms.float32), np.float32(500))


# --- products


@checks("mint.atan2")
def check_atan2() -> None:
    for _, np_dtype in DTYPES:
        y, x = draw(2, 3).astype(np_dtype), draw(3).astype(np_dtype)
        same(mint.atan2(Tensor(y), Tensor(x)), np.arctan2(y, x))
    zeros = np.zeros(2, np.float32), np.array([1, -1], np.float32)
    same(mint.atan2(*map(Tensor, zeros)), np.arctan2(*zeros))
    same(
        mint.atan2(Tensor([1, 0]), Tensor([1, -2])),
        np.arctan2(np.float32([1, 0]), [1, -2]).astype(np.float32),
    )


@checks("mint.mul")
def check_mul() -> None:
    for dtype, np_dtype in DTYPES:
        x, y = draw(2, 3).astype(np_dtype), draw(3).astype(np_dtype)
        same(mint.mul(Tensor(x), Tensor(y)), x * y)
        same(mint.mul(Tensor(x), 2.5), x * np_dtype(2.5))
        same(mint.mul(2, Tensor(x)), x * np_dtype(2))
        assert mint.mul(Tensor(x), 3).dtype == dtype
    same(mint.mul(Tensor([1, 2]), 3), np.array([3, 6]))


@checks("mint.einsum")
def check_einsum() -> None:
    a, b = draw(2, 3, 4), draw(2, 4, 5)
    for rule in ("bij,bjk->bik", "bij,bjk", "...ij,...jk->...ik"):
        same(mint.einsum(rule, Tensor(a), Tensor(b)), np.einsum(rule, a, b), 1e-5)
    same(mint.einsum("bii->b", Tensor(a[:, :3, :3])), np.einsum("bii->b", a[:, :3, :3]))
    same(mint.einsum("i,j->ij", [Tensor([1, 2]), Tensor([3, 4])]), np.array([[3, 4], [6, 8]]))
    same(mint.einsum(Tensor(a), [0, 1, 2], [2, 0, 1]), np.einsum(a, [0, 1, 2], [2, 0, 1]))
    half = a.astype(np.float16)
    same(mint.einsum("bij->b", Tensor(half)), half.sum((1, 2), np.float64).astype(np.float16))


@checks("mint.outer")
def check_outer() -> None:
    a, b = draw(3), draw(4)
    same(mint.outer(Tensor(a), Tensor(b)), np.outer(a, b))
    same(mint.outer(Tensor([1, 2]), Tensor([3])), np.array([[3], [6]]))


@checks("mint.mm")
def check_mm() -> None:
    a, b = draw(2, 3), draw(3, 4)
    same(mint.mm(Tensor(a), Tensor(b)), a @ b)
    same(mint.mm(Tensor(a).half(), Tensor(b).half()), (a @ b).astype(np.float16), 5e-3)
    with pytest.raises(ValueError, match="two matrices"):
        mint.mm(Tensor(a), Tensor(b[0]))


@checks("mint.addmm")
def check_addmm() -> None:
    c, a, b = draw(4), draw(2, 3), draw(3, 4)
    tensors = [Tensor(part) for part in (c, a, b)]
    same(mint.addmm(*tensors), c + a @ b)
    same(mint.addmm(*tensors, beta=0.5, alpha=2), 0.5 * c + 2 * (a @ b))
    broken = Tensor(np.full(4, np.nan, np.float32))
    same(mint.addmm(broken, *tensors[1:], beta=0), a @ b)


@checks("mint.baddbmm")
def check_baddbmm() -> None:
    c, a, b = draw(1, 2, 4), draw(5, 2, 3), draw(5, 3, 4)
    tensors = [Tensor(part) for part in (c, a, b)]
    same(mint.baddbmm(*tensors), c + a @ b)
    same(mint.baddbmm(*tensors, beta=0.5, alpha=0.1), np.float32(0.5) * c + (a @ b) * 0.1)
    broken = Tensor(np.full((1, 2, 4), np.nan, np.float32))
    same(mint.baddbmm(broken, *tensors[1:], beta=0), a @ b)


# --- layers and their functions

erf = np.vectorize(math.erf)


def _gelu(x: Any, approximate: str) -> Any:
    x = x.astype(np.float64)
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def _check_gelu(gelu: Any) -> None:
    def check(dtype: Any, np_dtype: Any) -> None:
        x = np.linspace(-6, 6, 101).astype(np_dtype)
        for approximate in ("none", "tanh"):
            want = _gelu(x, approximate).astype(np_dtype)
            same(gelu(Tensor(x), approximate), want)

    in_each_type(check)


@checks("mint.nn.functional.gelu")
def check_gelu() -> None:
    _check_gelu(lambda x, approximate: F.gelu(x, approximate=approximate))
    same(F.gelu(Tensor([1.0])), np.float32([0.8413447]))


@checks("mint.nn.GELU.construct")
def check_gelu_layer() -> None:
    _check_gelu(lambda x, approximate: mint.nn.GELU(approximate)(x))


@checks("mint.nn.functional.softplus")
def check_softplus() -> None:
    def check(dtype: Any, np_dtype: Any) -> None:
        x = np.array([-100, -1, 0, 0.5, 19, 21, 1000], np_dtype)
        for beta in (1, 2.5):
            want = np.where(x * beta > 20, x, np.logaddexp(0, x.astype(np.float64) * beta) / beta)
            same(F.softplus(Tensor(x), beta), want.astype(np_dtype))
        same(F.softplus(Tensor(x), threshold=-200), x)

    in_each_type(check)


@checks("mint.nn.functional.dropout")
def check_dropout() -> None:
    x = Tensor(np.ones((100, 100)), ms.float32)
    out = F.dropout(x, 0.25).asnumpy()
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((out == 0).mean() - 0.25) < 0.03
    same(F.dropout(x, 0.25, training=False), np.ones((100, 100), np.float32))
    same(F.dropout(x, 1.0), np.zeros((100, 100), np.float32))
    assert F.dropout(x.half()).dtype == ms.float16
    _follows_the_default_generator(lambda: F.dropout(x))
    assert F.dropout(x, 1.0, inplace=True) is x
    same(x, np.zeros((100, 100), np.float32))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        F.dropout(x, 1.5)


def _layer_norm(x: Any, axes: int, eps: float = 1e-5) -> Any:
    x, over = x.astype(np.float64), tuple(range(-axes, 0))
    return (x - x.mean(over, keepdims=True)) / np.sqrt(x.var(over, keepdims=True) + eps)


@checks("mint.nn.functional.layer_norm")
def check_layer_norm() -> None:
    def check(dtype: Any, np_dtype: Any) -> None:
        x, w, b = (
            part.astype(np_dtype) for part in (3 * draw(2, 3, 4) + 5, draw(3, 4), draw(3, 4))
        )
        args = [Tensor(part) for part in (x, w, b)]
        same(F.layer_norm(args[0], (4,)), _layer_norm(x, 1).astype(np_dtype), 1e-5)
        want = (_layer_norm(x, 2, 0.1) * w + b).astype(np_dtype)
        same(F.layer_norm(args[0], [3, 4], args[1], args[2], 0.1), want, 1e-5)
        want = (_layer_norm(x, 2) * w).astype(np_dtype)
        same(F.layer_norm(args[0], (3, 4), args[1]), want, 1e-5)

    in_each_type(check)
    with pytest.raises(ValueError, match="cannot normalise"):
        F.layer_norm(Tensor(draw(2, 3)), (2,))


@checks("mint.nn.LayerNorm.construct")
def check_layer_norm_layer() -> None:
    x, w, b = draw(2, 3, 4), draw(4), draw(4)
    layer = mint.nn.LayerNorm(4, eps=1e-3)
    layer.weight.set_data(Tensor(w))
    layer.bias.set_data(Tensor(b))
    same(layer(Tensor(x)), (_layer_norm(x, 1, 1e-3) * w + b).astype(np.float32), 1e-5)
    plain = mint.nn.LayerNorm([3, 4], elementwise_affine=False)
    same(plain(Tensor(x)), _layer_norm(x, 2).astype(np.float32), 1e-5)
    unbiased = mint.nn.LayerNorm(4, bias=False)
    same(unbiased(Tensor(x)), _layer_norm(x, 1).astype(np.float32), 1e-5)


def _check_embedding(embed: Any) -> None:
    table = draw(5, 3)
    for dtype, index in itertools.product((ms.int32, ms.int64), ([1, 4], [[0, 0], [3, 2]])):
        same(embed(Tensor(index, dtype), Tensor(table), {}), table[np.array(index)])
    same(embed(Tensor([2]), Tensor(table).half(), {}), table[[2]].astype(np.float16))
    short = table / np.maximum(1, np.linalg.norm(table, axis=1, keepdims=True) / 0.5)
    same(embed(Tensor([1, 2]), Tensor(table), {"max_norm": 0.5}), short[[1, 2]], 1e-5)


@checks("mint.nn.functional.embedding")
def check_embedding() -> None:
    _check_embedding(lambda index, table, options: F.embedding(index, table, **options))


@checks("mint.nn.Embedding.construct")
def check_embedding_layer() -> None:
    def embed(index: Any, table: Any, options: Any) -> Any:
        return mint.nn.Embedding(*table.shape, _weight=table, dtype=table.dtype, **options)(index)

    _check_embedding(embed)


@checks("mint.nn.functional.pad")
def check_pad() -> None:
    x = draw(2, 3, 4, 5)
    for dtype in (np.float32, np.float16, np.int64):
        y = x.astype(dtype)
        same(F.pad(Tensor(y), (1, 2)), np.pad(y, [(0, 0)] * 3 + [(1, 2)]))
        amounts = [(0, 0), (0, 0), (2, 0), (1, 2)]
        same(F.pad(Tensor(y), [1, 2, 2, 0]), np.pad(y, amounts))
        same(
            F.pad(Tensor(y), (1, 0, 0, 1), value=3),
            np.pad(y, [(0, 0)] * 2 + [(0, 1), (1, 0)], constant_values=3),
        )
    whole = (1, 0, 0, 2, 1, 1, 0, 1)
    same(F.pad(Tensor(x), whole), np.pad(x, [(0, 1), (1, 1), (0, 2), (1, 0)]))
    same(
        F.pad(Tensor(x), (-1, -2, 1, -1)),
        np.pad(x[:, :, :-1, 1:-2], [(0, 0)] * 2 + [(1, 0), (0, 0)]),
    )
    same(F.pad(Tensor([True]), (1, 0), value=False), np.array([False, True]))
    same(F.pad(Tensor(x), (0, 0)), x)
    for mode, np_mode in (("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")):
        same(
            F.pad(Tensor(x), (1, 2, 2, 1), mode=mode),
            np.pad(x, [(0, 0)] * 2 + [(2, 1), (1, 2)], np_mode),
        )
        same(F.pad(Tensor(x[0]), (1, 2), mode=mode), np.pad(x[0], [(0, 0)] * 2 + [(1, 2)], np_mode))
    with pytest.raises(ValueError, match="do not fit"):
        F.pad(Tensor(x[0, 0, 0]), (1, 1, 1, 1))
    with pytest.raises(ValueError, match="takes no value"):
        F.pad(Tensor(x), (1, 1), mode="reflect", value=1.0)


def _cubic(t: float) -> float:
    t, a = abs(t), -0.75
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def _resizing(old: int, new: int, mode: str, corners: bool) -> Any:
    """Build the matrix that resizes one axis."""
    rows = np.zeros((new, old))
    for i in range(new):
        if corners:
            at = i * (old - 1) / (new - 1) if new > 1 else 0.0
        else:
            at = (i + 0.5) * old / new - 0.5
            at = at if mode == "cubic" else max(at, 0.0)
        base = math.floor(at)
        for k in range(base - 1, base + 3):
            weight = _cubic(at - k) if mode == "cubic" else max(0.0, 1 - abs(at - k))
            rows[i, min(max(k, 0), old - 1)] += weight
    return rows


def _resized(x: Any, size: tuple[int, ...], mode: str, corners: bool) -> Any:
    out = x.astype(np.float64)
    for axis, new in enumerate(size, start=2):
        matrix = _resizing(x.shape[axis], new, mode, corners)
        out = np.moveaxis(np.tensordot(matrix, out, (1, axis)), 0, axis)
    return out.astype(np.float32)


@checks("mint.nn.functional.interpolate")
def check_interpolate() -> None:
    x = draw(2, 3, 4, 5)
    for size, corners in itertools.product(((8, 10), (2, 3), (4, 5), (7, 4)), (True, False)):
        for mode, np_mode in (("bilinear", "linear"), ("bicubic", "cubic")):
            got = F.interpolate(Tensor(x), size=size, mode=mode, align_corners=corners)
            same(got, _resized(x, size, np_mode, corners), 2e-5)
        got = F.interpolate(Tensor(x[0]), size=size[1], mode="linear", align_corners=corners)
        same(got, _resized(x[0], size[1:], "linear", corners), 2e-5)
        want = ms.ops.interpolate(Tensor(x), size=size, mode="bilinear", align_corners=corners)
        got = F.interpolate(Tensor(x), size=size, mode="bilinear", align_corners=corners)
        same(got, want.asnumpy(), 2e-5)
    half = F.interpolate(Tensor(x).half(), size=(8, 10), mode="bilinear")
    same(half, _resized(x, (8, 10), "linear", False).astype(np.float16), 5e-3)
    got = F.interpolate(Tensor(x), scale_factor=2.0, mode="bilinear")
    same(got, _resized(x, (8, 10), "linear", False), 2e-5)
    got = F.interpolate(Tensor(x), size=8, mode="bilinear")
    same(got, _resized(x, (8, 8), "linear", False), 2e-5)
    nearest = x.repeat(2, 2).repeat(2, 3)
    same(F.interpolate(Tensor(x), scale_factor=2.0), nearest)
    same(F.interpolate(Tensor(x), size=(8, 10), mode="nearest"), nearest)
    with pytest.raises(ValueError, match="exactly one"):
        F.interpolate(Tensor(x), mode="bilinear")


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _convolved(
    x: Any, w: Any, b: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    """Convolve by gathering, at every output position, the taps of the kernel."""
    axes = w.ndim - 2
    stride, dilation = _each(stride, axes), _each(dilation, axes)
    reach = [d * (k - 1) for d, k in zip(dilation, w.shape[2:], strict=True)]
    if padding == "same":
        pads = [(total // 2, total - total // 2) for total in reach]
    else:
        pads = [(p, p) for p in _each(0 if padding == "valid" else padding, axes)]
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *pads])
    sizes = [(n - r - 1) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    out = np.zeros((x.shape[0], w.shape[0], *sizes))
    per_in, per_out = w.shape[1], w.shape[0] // groups
    for tap in itertools.product(*(range(k) for k in w.shape[2:])):
        window = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, dilation, sizes, stride, strict=True)
        )
        for g in range(groups):
            part = x[(slice(None), slice(g * per_in, (g + 1) * per_in), *window)]
            outs = slice(g * per_out, (g + 1) * per_out)
            out[:, outs] += np.einsum("bi...,oi->bo...", part, w[(outs, slice(None), *tap)])
    return out if b is None else out + b.reshape(1, -1, *[1] * axes)


def _check_convolution(convolve: Any, axes: int) -> None:
    cases = [
        (1, 0, 1, 1),
        (2, 1, 1, 1),
        (1, 2, 2, 2),
        ((2, 1, 1)[:axes], (1, 0, 2)[:axes], (1, 2, 1)[:axes], 1),
        (1, "same", 1, 1),
        (1, "valid", 1, 2),
    ]
    for stride, padding, dilation, groups in cases:
        for width in (2, 3):
            x, b = draw(2, 4, *range(7, 7 + axes)), draw(6)
            w = draw(6, 4 // groups, *[width] * axes)
            args = (stride, padding, dilation, groups)
            want = _convolved(x, w, b, *args).astype(np.float32)
            same(convolve(Tensor(x), Tensor(w), Tensor(b), *args), want, 2e-5)
    x, w = draw(1, 2, *[5] * axes), draw(3, 2, *[3] * axes)
    want = _convolved(x, w, None, 1, 0, 1, 1)
    same(convolve(Tensor(x), Tensor(w)), want.astype(np.float32), 2e-5)
    same(convolve(Tensor(x[0]), Tensor(w)), want[0].astype(np.float32), 2e-5)
    halves = Tensor(x).half(), Tensor(w).half()
    same(convolve(*halves), want.astype(np.float16), 2e-2)
    b = draw(3)
    want = _convolved(x, w, b, 1, 0, 1, 1)
    same(convolve(*halves, Tensor(b).half()), want.astype(np.float16), 2e-2)


def _check_convolution_layer(make: Any, axes: int) -> None:
    for mode, np_mode in (("zeros", "constant"), ("reflect", "reflect"), ("circular", "wrap")):
        if axes == 3 and mode != "zeros":
            continue  # MindSpore's own five-dimensional padding knows neither
        layer = make(4, 6, 3, stride=2, padding=1, groups=2, padding_mode=mode)
        x, b = draw(2, 4, *[7] * axes), draw(6)
        layer.bias.set_data(Tensor(b))
        padded = np.pad(x, [(0, 0), (0, 0)] + [(1, 1)] * axes, np_mode)
        want = _convolved(padded, layer.weight.asnumpy(), b, 2, 0, 1, 2)
        same(layer(Tensor(x)), want.astype(np.float32), 2e-5)
    layer = make(4, 6, 2, bias=False, padding="same")
    want = _convolved(x, layer.weight.asnumpy(), None, 1, "same", 1, 1)
    same(layer(Tensor(x)), want.astype(np.float32), 2e-5)


@checks("mint.nn.functional.conv1d")
def check_conv1d() -> None:
    _check_convolution(F.conv1d, 1)


@checks("mint.nn.functional.conv2d")
def check_conv2d() -> None:
    _check_convolution(F.conv2d, 2)
    _check_convolution(mint.conv2d, 2)


@checks("mint.nn.functional.conv3d")
def check_conv3d() -> None:
    _check_convolution(F.conv3d, 3)


@checks("mint.nn.Conv1d.construct")
def check_conv1d_layer() -> None:
    _check_convolution_layer(mint.nn.Conv1d, 1)


@checks("mint.nn.Conv2d.construct")
def check_conv2d_layer() -> None:
    _check_convolution_layer(mint.nn.Conv2d, 2)


@checks("mint.nn.Conv3d.construct")
def check_conv3d_layer() -> None:
    _check_convolution_layer(mint.nn.Conv3d, 3)


def _transposed(
    x: Any, w: Any, stride: Any, padding: Any, extra: Any, groups: int, dilation: Any
) -> Any:
    """Convolve backwards: each input element adds its scaled copy of the kernel to the output."""
    stride, padding, extra, dilation = (_each(v, 2) for v in (stride, padding, extra, dilation))
    outs, kernel = w.shape[1], w.shape[2:]
    size = [
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, s, d, k, e in zip(x.shape[2:], stride, dilation, kernel, extra, strict=True)
    ]
    out = np.zeros((x.shape[0], outs * groups, *size))
    per_in = x.shape[1] // groups
    for g, i, j in itertools.product(range(groups), *(range(k) for k in kernel)):
        ins = slice(g * per_in, (g + 1) * per_in)
        rows = slice(i * dilation[0], i * dilation[0] + (x.shape[2] - 1) * stride[0] + 1, stride[0])
        columns = slice(
            j * dilation[1], j * dilation[1] + (x.shape[3] - 1) * stride[1] + 1, stride[1]
        )
        part = np.einsum("bihw,io->bohw", x[:, ins], w[ins, :, i, j])
        out[:, g * outs : (g + 1) * outs, rows, columns] += part
    high, wide = padding
    return out[:, :, high : size[0] - high, wide : size[1] - wide].astype(np.float32)


@checks("mint.nn.functional.conv_transpose2d")
def check_conv_transpose2d() -> None:
    x, w, b = draw(2, 4, 5, 6), draw(4, 3, 3, 2), draw(6)
    cases: list[tuple[Any, ...]] = [
        (1, 0, 0, 1, 1),
        (2, 1, 1, 2, 1),
        ((2, 3), (0, 1), (1, 2), 1, 1),
        (2, (1, 0), 0, 2, (2, 1)),
        (1, 3, 0, 1, 1),
    ]
    for case in cases:
        bias = b[: 3 * case[3]]
        got = F.conv_transpose2d(Tensor(x), Tensor(w), Tensor(bias), *case)
        same(got, _transposed(x, w, *case) + bias.reshape(-1, 1, 1), 1e-5)
    plain = _transposed(x, w, 1, 0, 0, 1, 1)
    same(F.conv_transpose2d(Tensor(x[0]), Tensor(w)), plain[0], 1e-5)
    layer = mint.nn.ConvTranspose2d(4, 3, (3, 2), stride=2, bias=False)
    want = _transposed(x, layer.weight.asnumpy(), 2, 0, 0, 1, 1)
    same(layer(Tensor(x)), want, 1e-5)


@checks("mint.nn.functional.avg_pool2d")
def check_avg_pool2d() -> None:
    x = draw(2, 3, 6, 8)
    want = x.reshape(2, 3, 3, 2, 4, 2).mean((3, 5))
    same(F.avg_pool2d(Tensor(x), 2), want)
    same(F.avg_pool2d(Tensor(x), (2, 2), (2, 2)), want)
    same(F.avg_pool2d(Tensor(x).half(), 2), want.astype(np.float16))
    same(F.avg_pool2d(Tensor(x), 2, divisor_override=1), want * 4, 1e-5)
    ones = Tensor(np.ones((1, 1, 4, 4), np.float32))
    corner = F.avg_pool2d(ones, 3, stride=1, padding=1).asnumpy()[0, 0, 0, 0]
    assert corner == pytest.approx(4 / 9)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 0)]).reshape(2, 3, 4, 2, 4, 2)
    same(F.avg_pool2d(Tensor(x), 2, padding=(1, 0)), padded.mean((3, 5)))
    whole = F.avg_pool2d(ones, 3, stride=1, padding=1, count_include_pad=False)
    same(whole, np.ones((1, 1, 4, 4), np.float32))
    assert F.avg_pool2d(Tensor(draw(1, 1, 5, 5)), 2, ceil_mode=True).shape == (1, 1, 3, 3)


@checks("mint.nn.AvgPool2d.construct")
def check_avg_pool2d_layer() -> None:
    x = draw(2, 3, 6, 8)
    want = x.reshape(2, 3, 3, 2, 4, 2).mean((3, 5))
    same(mint.nn.AvgPool2d(2)(Tensor(x)), want)
    same(mint.nn.AvgPool2d(kernel_size=2, stride=2)(Tensor(x).half()), want.astype(np.float16))
    layer = mint.nn.AvgPool2d(2, ceil_mode=True, divisor_override=1)
    assert layer(Tensor(draw(1, 1, 5, 5))).shape == (1, 1, 3, 3)
    same(mint.nn.AvgPool2d(2, divisor_override=1)(Tensor(x)), want * 4, 1e-5)


@checks("mint.nn.functional.avg_pool3d")
def check_avg_pool3d() -> None:
    x = draw(2, 3, 4, 6, 8)
    want = x.reshape(2, 3, 2, 2, 3, 2, 4, 2).mean((3, 5, 7))
    same(F.avg_pool3d(Tensor(x), 2), want)
    same(F.avg_pool3d(Tensor(x[0]), (2, 2, 2), stride=2), want[0])
    same(F.avg_pool3d(Tensor(x).half(), 2), want.astype(np.float16))
    flat = x.reshape(2, 3, 4, 3, 2, 4, 2).mean((4, 6))
    same(mint.functional.avg_pool3d(Tensor(x), kernel_size=(1, 2, 2), stride=(1, 2, 2)), flat)
    same(F.avg_pool3d(Tensor(x), 2, divisor_override=1), want * 8, 1e-5)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 0), (0, 0)])
    want = padded.reshape(2, 3, 3, 2, 3, 2, 4, 2).mean((3, 5, 7))
    same(F.avg_pool3d(Tensor(x), 2, padding=(1, 0, 0)), want)
    assert F.avg_pool3d(Tensor(draw(1, 1, 5, 5, 5)), 2, ceil_mode=True).shape == (1, 1, 3, 3, 3)


@checks("mint.nn.functional.adaptive_avg_pool2d")
def check_adaptive_avg_pool2d() -> None:
    x = draw(2, 3, 6, 8)
    same(F.adaptive_avg_pool2d(Tensor(x), 1), x.mean((2, 3), keepdims=True))
    same(F.adaptive_avg_pool2d(Tensor(x), (3, 4)), x.reshape(2, 3, 3, 2, 4, 2).mean((3, 5)))
    same(F.adaptive_avg_pool2d(Tensor(x), (None, 4)), x.reshape(2, 3, 6, 4, 2).mean(4))
    uneven = [x[..., a:b].mean(-1) for a, b in ((0, 3), (2, 6), (5, 8))]
    same(F.adaptive_avg_pool2d(Tensor(x), (6, 3)), np.stack(uneven, -1))
    whole = x.mean((2, 3), keepdims=True).astype(np.float16)
    same(mint.nn.AdaptiveAvgPool2d(1)(Tensor(x).half()), whole)


@checks("mint.nn.functional.batch_norm")
def check_batch_norm() -> None:
    mean, var, weight, bias = draw(3), draw(3) ** 2, draw(3), draw(3)
    given = [Tensor(part) for part in (mean, var, weight, bias)]
    for shape in ((2, 3), (2, 3, 4), (2, 3, 4, 5)):
        x = draw(*shape)
        m, v, w, b = (part.reshape(1, 3, *[1] * (x.ndim - 2)) for part in (mean, var, weight, bias))
        plain = (x - m) / np.sqrt(v + 1e-3)
        same(F.batch_norm(Tensor(x), *given[:2], eps=1e-3), plain, 1e-5)
        same(F.batch_norm(Tensor(x), *given, eps=1e-3), plain * w + b, 1e-5)
        half = F.batch_norm(Tensor(x).half(), *given[:2], eps=1e-3)
        assert half.dtype == ms.float16
        np.testing.assert_allclose(half.asnumpy(), plain, 1e-2, 1e-2)
    layer = mint.nn.BatchNorm2d(3).set_train(False)
    layer.running_mean.set_data(given[0])
    x = draw(2, 3, 4, 5)
    same(layer(Tensor(x)), (x - mean[:, None, None]) / np.sqrt(np.float32(1 + 1e-5)), 1e-5)
    with pytest.raises(ValueError, match="training"):
        F.batch_norm(Tensor(x), *given, training=True)
    with pytest.raises(ValueError, match="statistics"):
        F.batch_norm(Tensor(x), None, None)


# --- attention


def _softmax(scores: Any) -> Any:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _attention(q: Any, k: Any, v: Any, bias: Any = 0.0, scale: float | None = None) -> Any:
    q, k, v = (part.astype(np.float64) for part in (q, k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return _softmax(q @ np.swapaxes(k, -1, -2) * scale + bias) @ v


@checks("mindone.diffusers.models.layers_compat.scaled_dot_product_attention")
def check_scaled_dot_product_attention() -> None:
    from mindone.diffusers.models.layers_compat import scaled_dot_product_attention as attend

    def check(dtype: Any, np_dtype: Any) -> None:
        q, k, v = (
            part.astype(np_dtype) for part in (draw(2, 4, 5, 8), draw(2, 4, 6, 8), draw(2, 4, 6, 3))
        )
        args = [Tensor(part) for part in (q, k, v)]
        keep = RNG.random((2, 1, 5, 6)) > 0.4
        keep[..., 0] = True
        added, causal = draw(5, 6), np.where(np.tri(5, 6), 0, -np.inf)
        hidden = np.where(keep, 0, -np.inf)
        cases: list[tuple[dict[str, Any], Any, float | None]] = [
            ({}, 0, None),
            ({"scale": 0.3}, 0, 0.3),
            ({"attn_mask": Tensor(keep)}, hidden, None),
            ({"attn_mask": Tensor(added)}, added, None),
            ({"attn_mask": Tensor(added), "is_causal": True}, added + causal, None),
            ({"attn_mask": Tensor(keep), "is_causal": True}, hidden + causal, None),
            ({"is_causal": True}, causal, None),
            ({"backend": "math"}, 0, None),
        ]
        for options, bias, scale in cases:
            want = _attention(q, k, v, bias, scale).astype(np_dtype)
            same(attend(*args, **options), want, ROUNDED)
        same(
            attend(*[arg[:, 0] for arg in args]),
            _attention(q[:, 0], k[:, 0], v[:, 0]).astype(np_dtype),
            ROUNDED,
        )
        # One of keys and values for all rows; and tokens alone.
        same(
            attend(args[0], args[1][:1], args[2][:1]),
            _attention(q, k[:1], v[:1]).astype(np_dtype),
            ROUNDED,
        )
        same(
            attend(*[arg[0, 0] for arg in args]),
            _attention(q[0, 0], k[0, 0], v[0, 0]).astype(np_dtype),
            ROUNDED,
        )
        shared = _attention(q, k[:, :2].repeat(2, 1), v[:, :2].repeat(2, 1)).astype(np_dtype)
        same(attend(args[0], args[1][:, :2], args[2][:, :2], enable_gqa=True), shared, ROUNDED)

    in_each_type(check)
    x = Tensor(draw(1, 1, 3, 4))
    assert (attend(x, x, x, dropout_p=0.9).asnumpy() != attend(x, x, x).asnumpy()).any()


@checks("mindone.diffusers.models.attention_processor.Attention.scaled_dot_product_attention")
def check_attention_layer() -> None:
    from mindone.diffusers.models.attention_processor import Attention

    layer = Attention(16, heads=2, dim_head=8)
    parts = [draw(3, 2, 5, 8), draw(3, 2, 6, 8), draw(3, 2, 6, 8)]
    attend = layer.scaled_dot_product_attention
    in_all = RNG.random((3, 1, 1, 6)) > 0.4
    in_all[..., 0] = True
    in_each = np.repeat(in_all, 2, 1)
    added = draw(3, 1, 5, 6)
    biases = [
        (None, 0.0),
        (in_all, np.where(in_all, 0, -np.inf)),
        (in_each, np.where(in_all, 0, -np.inf)),
        (added, added),
        (added.repeat(2, 1).reshape(6, 5, 6), added),
    ]
    for (mask, bias), (dtype, np_dtype) in itertools.product(biases, DTYPES):
        given = None if mask is None else Tensor(mask)
        rounded = [part.astype(np_dtype).astype(float) for part in parts]
        want = _attention(*rounded, bias).astype(np_dtype)
        tensors = [Tensor(part, dtype) for part in parts]
        same(attend(*tensors, given), want)
        same(attend(*tensors, given, scale=0.7), _attention(*rounded, bias, 0.7).astype(np_dtype))
    flat = [Tensor(part.reshape(6, -1, 8)) for part in parts]
    want = _attention(*parts, added).reshape(6, 5, 8).astype(np.float32)
    same(attend(*flat, Tensor(added.repeat(2, 1).reshape(6, 5, 6))), want)
    nothing = Tensor(np.zeros((3, 1, 1, 6), bool))
    mean = np.broadcast_to(parts[2].mean(2, keepdims=True), (3, 2, 5, 8))
    same(attend(*map(Tensor, parts), nothing), mean)


@checks("ops.operations.nn_ops.FlashAttentionScore")
def check_flash_attention_score() -> None:
    flash = ms.ops.operations.nn_ops.FlashAttentionScore
    q, k, v = draw(2, 4, 5, 8), draw(2, 2, 6, 8), draw(2, 2, 6, 8)
    drop = RNG.random((2, 1, 5, 6)) > 0.6
    drop[..., 0] = False
    shared = (q, k.repeat(2, 1), v.repeat(2, 1))
    want = _attention(*shared, np.where(drop, -np.inf, 0), 0.3)
    layouts: dict[str, Callable[[Any], Any]] = {
        "BNSD": lambda x: x,
        "BSND": lambda x: x.swapaxes(1, 2),
        "BSH": lambda x: x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1),
        "SBH": lambda x: x.transpose(2, 0, 1, 3).reshape(x.shape[2], x.shape[0], -1),
    }
    for layout, arrange in layouts.items():
        op = flash(head_num=4, scale_value=0.3, input_layout=layout)
        parts = [Tensor(np.ascontiguousarray(arrange(part))) for part in (q, k, v)]
        out = op(*parts, None, None, None, Tensor(drop))
        same(out[3], arrange(want).astype(np.float32))
        assert out[0].shape == out[1].shape == (2, 4, 5, 8)
        same(op(*parts)[3], arrange(_attention(*shared, 0, 0.3)).astype(np.float32))
    halves = [Tensor(part).half() for part in (q, k, v)]
    assert flash(4, input_layout="BNSD")(*halves)[3].dtype == ms.float16
    with pytest.raises(ValueError, match="layout 'TND'"):
        flash(4, input_layout="TND")
    with pytest.raises(ValueError, match="sparse_mode"):
        flash(4, sparse_mode=2)
    with pytest.raises(ValueError, match="attention mask"):
        flash(4, input_layout="BNSD")(*halves, halves[0])


@checks("ops.flash_attention_score")
def check_flash_attention_score_function() -> None:
    q, k, v = draw(2, 4, 5, 8), draw(2, 2, 6, 8), draw(2, 2, 6, 8)
    drop = RNG.random((2, 1, 5, 6)) > 0.6
    drop[..., 0] = False
    shared = (q, k.repeat(2, 1), v.repeat(2, 1))
    for dtype, np_dtype in DTYPES:
        parts = [Tensor(part, dtype) for part in (q, k, v)]
        want = _attention(*(part.astype(np_dtype).astype(float) for part in shared), 0, 0.3)
        got = ms.ops.flash_attention_score(*parts, 4, scalar_value=0.3, input_layout="BNSD")
        same(got, want.astype(np_dtype))
    flat = [Tensor(x.swapaxes(1, 2).reshape(2, x.shape[2], -1)) for x in (q, k, v)]
    want = _attention(*shared, np.where(drop, -np.inf, 0), 1.0).swapaxes(1, 2).reshape(2, 5, -1)
    got = ms.ops.flash_attention_score(*flat, 4, attn_mask=Tensor(drop))
    same(got, want.astype(np.float32))
    with pytest.raises(ValueError, match="layout 'TND'"):
        ms.ops.flash_attention_score(*flat, 4, input_layout="TND")
    with pytest.raises(ValueError, match="sparse_mode"):
        ms.ops.flash_attention_score(*flat, 4, sparse_mode=2)
    with pytest.raises(ValueError, match="attention mask"):
        ms.ops.flash_attention_score(*flat, 4, prefix=[1, 1])


# --- properties over many shapes

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@st.composite
def array_and_axis(draws: st.DrawFn) -> tuple[Any, int]:
    shape = draws(SHAPES)
    values = draws(st.integers(0, 2**32 - 1).map(np.random.default_rng)).standard_normal(shape)
    return values.astype(np.float32), draws(st.integers(-len(shape), len(shape) - 1))


@settings(max_examples=40, deadline=None)
@given(array_and_axis(), st.integers(1, 5))
def test_split_parts_join_again(case: tuple[Any, int], size: int) -> None:
    array, axis = case
    cpu.enable_cpu()
    parts = mint.split(Tensor(array), size, axis)
    assert all(part.shape[axis] == size for part in parts[:-1])
    same(mint.cat(parts, axis), array, 0.0)


@settings(max_examples=40, deadline=None)
@given(array_and_axis(), st.booleans())
def test_reductions_agree_on_any_axis(case: tuple[Any, int], keep: bool) -> None:
    array, axis = case
    x = Tensor(array)
    cpu.enable_cpu()
    same(mint.cumsum(x, axis), np.cumsum(array, axis, dtype=np.float32), 1e-5)
    want = np.std(array.astype(np.float64), axis, keepdims=keep).astype(np.float32)
    same(mint.std(x, axis, correction=0, keepdim=keep), want, 1e-5)
    same(mint.norm(x, 2, axis, keep), np.linalg.norm(array, 2, axis, keepdims=keep), 1e-5)
    same(mint.argmax(x, axis, keep), np.argmax(array, axis, keepdims=keep))
    same(mint.sort(x, dim=axis)[0], np.sort(array, axis), 0.0)
    same_parts(mint.unbind(x, axis), list(np.moveaxis(array, axis, 0)))


@settings(max_examples=40, deadline=None)
@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(1, 7), st.booleans())
def test_arange_counts_as_numpy_does(start: int, end: int, step: int, down: bool) -> None:
    step = -step if down else step
    cpu.enable_cpu()
    same(mint.arange(start, end, step), np.arange(start, end, step))


# --- the switch


def _framework_attributes() -> dict[tuple[str, str], int]:
    """Note what the modules of mint and mindone, and the patched classes, hold by each name."""
    held = {
        (name, key): id(value)
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType) and name.startswith(("mindspore.mint", "mindone"))
        for key, value in vars(module).items()
    }
    for kernel in cpu.KERNELS:
        owner = kernel.resolve_owner()
        if inspect.isclass(owner):
            held |= {(kernel.owner, key): id(value) for key, value in vars(owner).items()}
        held[kernel.owner, kernel.attribute] = id(getattr(owner, kernel.attribute))
    return held


def test_something_is_replaced_and_all_of_it_is_listed(enabled: tuple[str, ...]) -> None:
    assert ms.get_context("device_target") == "CPU"
    assert {"mint.arange", "mint.nn.Conv2d.construct", "Tensor.clone"} <= set(enabled)
    assert set(enabled) <= set(NAMES)
    for kernel in cpu.KERNELS:
        present = getattr(kernel.resolve_owner(), kernel.attribute)
        assert (present is kernel.replacement) == (kernel.name in enabled)


def test_exactly_the_kernels_that_raise_are_replaced(enabled: tuple[str, ...]) -> None:
    cpu.disable_cpu()
    works = []
    for kernel in cpu.KERNELS:
        try:
            cpu._fetch(kernel.probe())
        except Exception:
            continue
        works.append(kernel.name)
    assert set(works) == set(NAMES) - set(enabled)
    assert len(enabled) > 60


def test_a_kernel_that_works_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.disable_cpu()
    own = mint.sin
    kernel = cpu.Kernel("mindspore.mint", "sin", lambda: mint.sin(Tensor([0.0])), lambda x: x)
    monkeypatch.setattr(cpu, "KERNELS", (*cpu.KERNELS, kernel))
    assert "mint.sin" not in cpu.enable_cpu()
    assert mint.sin is own


def test_enabling_twice_changes_nothing(enabled: tuple[str, ...]) -> None:
    before = _framework_attributes()
    assert cpu.enable_cpu() == enabled
    assert _framework_attributes() == before


def test_disabling_puts_every_attribute_back(enabled: tuple[str, ...]) -> None:
    cpu.disable_cpu()
    stock = _framework_attributes()
    assert "clone" not in vars(Tensor)
    assert cpu.enable_cpu() == enabled
    assert _framework_attributes() != stock
    cpu.disable_cpu()
    cpu.disable_cpu()
    assert _framework_attributes() == stock
    with pytest.raises(RuntimeError):
        mint.arange(3).asnumpy()


def test_names_imported_before_and_after_follow_the_switch() -> None:
    cpu.disable_cpu()
    before, after = ModuleType("mindone.before"), ModuleType("mindone.after")
    stock = mint.roll, mint.nonzero
    vars(before)["my_roll"] = mint.roll
    sys.modules["mindone.before"] = before
    try:
        cpu.enable_cpu()
        assert vars(before)["my_roll"] is mint.roll is not stock[0]
        vars(after)["roll"], vars(after)["nonzero"] = mint.roll, mint.nonzero
        sys.modules["mindone.after"] = after
        cpu.disable_cpu()
        assert vars(before)["my_roll"] is vars(after)["roll"] is stock[0]
        assert vars(after)["nonzero"] is stock[1]
    finally:
        sys.modules.pop("mindone.before")
        sys.modules.pop("mindone.after", None)


def test_functions_that_mint_builds_on_others_work_too() -> None:
    x = draw(2, 3)
    same(F.normalize(Tensor(x)), x / np.linalg.norm(x, axis=1, keepdims=True))
    same(mint.nn.ZeroPad2d(1)(Tensor(x[None])), np.pad(x[None], [(0, 0), (1, 1), (1, 1)]))


def test_another_device_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.disable_cpu()
    stock = _framework_attributes()

    def forbidden() -> None:
        raise AssertionError("launch_blocking on another device")

    monkeypatch.setattr(ms, "get_context", lambda key: {"device_target": "Ascend"}[key])
    monkeypatch.setattr(ms.runtime, "launch_blocking", forbidden)
    assert cpu.enable_cpu() == ()
    assert _framework_attributes() == stock


def test_without_mindone_the_rest_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.disable_cpu()
    monkeypatch.setattr(cpu, "find_spec", lambda name: None if name == "mindone" else object())
    names = cpu.enable_cpu()
    assert "mint.arange" in names
    assert not any("mindone" in name for name in names)


def test_enabling_leaves_the_random_state_of_numpy_alone() -> None:
    cpu.disable_cpu()
    np.random.seed(5)
    want = np.random.random()
    np.random.seed(5)
    cpu.enable_cpu()
    assert np.random.random() == want


def _parameters(function: Any) -> list[inspect.Parameter]:
    """List a function's parameters; none where the framework's binding tells nothing of them."""
    try:
        found = list(inspect.signature(function).parameters.values())
    except ValueError:
        return []
    return [] if any(p.kind is p.VAR_KEYWORD for p in found) else found


def _framework_function(kernel: cpu.Kernel) -> Any:
    return getattr(kernel.resolve_owner(), kernel.attribute)


cpu.disable_cpu()  # or ours would tell theirs, if another module had enabled it
THEIRS = {kernel.name: _parameters(_framework_function(kernel)) for kernel in cpu.KERNELS}
TELLING = [kernel for kernel in cpu.KERNELS if THEIRS[kernel.name]]
cpu.enable_cpu()


def test_most_functions_of_the_framework_tell_their_parameters() -> None:
    assert len(TELLING) > 50


@pytest.mark.parametrize("kernel", TELLING, ids=lambda kernel: kernel.name)
def test_replacement_takes_the_frameworks_parameters(kernel: cpu.Kernel) -> None:
    theirs, ours = THEIRS[kernel.name], _parameters(kernel.replacement)
    if kernel.attribute == "FlashAttentionScore":  # a primitive tells its names and no defaults
        assert [p.name for p in ours] == [p.name for p in theirs]
        return
    for place, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        # The tensor of a method is called self there; `backend` chooses nothing on a CPU.
        assert our.name == their.name or (place == 0 and their.name == "self")
        assert our.kind == their.kind
        assert our.default == their.default or our.name == "backend"


# --- mindone's pipelines, tiny and with random weights

SIZE = 64


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Build a CLIP tokenizer whose words are single bytes, from files written here."""
    from transformers import CLIPTokenizer
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    folder = tmp_path_factory.mktemp("tokenizer")
    letters = list(bytes_to_unicode().values())
    ends = [f"{letter}</w>" for letter in letters]
    words = [*letters, *ends, "<|startoftext|>", "<|endoftext|>"]
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({word: i for i, word in enumerate(words)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=16)


def _text_encoder(tokenizer: Any, kind: str) -> Any:
    import mindone.transformers
    from transformers import CLIPTextConfig

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return getattr(mindone.transformers, kind)(config)


def _denoiser_config(xl: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "in_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (32, 64),
        "norm_num_groups": 16,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "cross_attention_dim": 64 if xl else 32,
        "attention_head_dim": (2, 4) if xl else 4,
    }
    if xl:
        config |= {
            "transformer_layers_per_block": (1, 1),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 32,
        }
    return config


def _models(tokenizer: Any, xl: bool) -> dict[str, Any]:
    from mindone import diffusers

    unet = diffusers.UNet2DConditionModel(
        sample_size=SIZE // 8,
        out_channels=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **_denoiser_config(xl),
    )
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16,) * 4,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=SIZE,
    )
    models = {
        "unet": unet,
        "vae": vae,
        "scheduler": diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        "tokenizer": tokenizer,
        "text_encoder": _text_encoder(tokenizer, "CLIPTextModel"),
    }
    if xl:
        second = _text_encoder(tokenizer, "CLIPTextModelWithProjection")
        return models | {"tokenizer_2": tokenizer, "text_encoder_2": second}
    return models | {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _images(pipe: Any, **options: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 2, "output_type": "np", "height": SIZE, "width": SIZE}
    generator = np.random.default_rng(0)
    return pipe(["a lighthouse", "fog"], **call, generator=generator, **options)[0]


def _is_picture(images: Any) -> None:
    assert images.shape == (2, SIZE, SIZE, 3)
    assert np.isfinite(images).all()
    assert images.std() > 0.01


def test_stable_diffusion_runs_and_did_not_before(tokenizer: Any) -> None:
    from mindone.diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline(**_models(tokenizer, xl=False))
    first = _images(pipe)
    _is_picture(first)
    np.testing.assert_array_equal(first, _images(pipe))
    cpu.disable_cpu()
    with pytest.raises(RuntimeError):
        _images(pipe)


def test_stable_diffusion_runs_in_half_precision(tokenizer: Any) -> None:
    from mindone.diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline(**_models(tokenizer, xl=False))
    full = _images(pipe)
    half = _images(pipe.to(ms.float16))
    _is_picture(half)
    np.testing.assert_allclose(half, full, atol=0.05)


def test_stable_diffusion_xl_runs(tokenizer: Any) -> None:
    from mindone.diffusers import StableDiffusionXLPipeline

    _is_picture(_images(StableDiffusionXLPipeline(**_models(tokenizer, xl=True))))


def test_stable_diffusion_controlnet_runs(tokenizer: Any) -> None:
    from mindone.diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    controlnet = ControlNetModel(
        conditioning_embedding_out_channels=(8, 8, 8, 16), **_denoiser_config(xl=False)
    )
    # A fresh ControlNet ends in zeros and would not be heard.
    last = controlnet.controlnet_mid_block.weight
    last.set_data(Tensor(draw(*last.shape)))
    models = _models(tokenizer, xl=False)
    pipe = StableDiffusionControlNetPipeline(**models, controlnet=controlnet)
    control = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    image = PIL.Image.fromarray(control)
    _is_picture(with_control := _images(pipe, image=image))
    without = _images(pipe, image=image, controlnet_conditioning_scale=0.0)
    assert np.abs(with_control - without).max() > 1e-3
