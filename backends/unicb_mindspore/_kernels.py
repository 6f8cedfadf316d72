"""Create tensors on a CPU, random ones included, in the place of `mindspore.mint`'s functions.

Signatures, defaults and result types are those of MindSpore 2.7. Each function uses the framework's
own `mindspore.ops` where that has a CPU kernel, and numpy on the host where it has none. A function
that goes through numpy has no gradient: these replacements are for inference.

`unicb_mindspore.cpu` decides which of them are put in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from mindspore.common.generator import default_generator

DType = Any  # a mindspore.dtype; MindSpore ships no type information

_MANTISSA_BITS = {ms.float16: 11, ms.float32: 24, ms.float64: 53}
_GENERATOR_STEP = 12  # how far MindSpore's own random kernels advance a generator per call


def axis_of(dim: int, ndim: int) -> int:
    """Return `dim` counted from the front; raise ValueError for a dim that `ndim` axes lack."""
    if not -ndim <= dim < max(ndim, 1):
        raise ValueError(f"dim {dim} is out of range for a tensor of {ndim} dimensions")
    return dim + ndim if dim < 0 else dim


def as_shape(size: Sequence[Any]) -> tuple[int, ...]:
    """Read `(2, 3)` and `((2, 3),)` alike, as the framework does for `*size`."""
    if len(size) == 1 and isinstance(size[0], tuple | list):
        size = size[0]
    return tuple(int(s) for s in size)


def as_number(value: Any) -> Any:
    """Turn a one-element tensor into a Python number and leave a number alone."""
    return value.asnumpy().item() if isinstance(value, Tensor) else value


def _inferred(value: Any) -> DType:
    if isinstance(value, bool):
        return ms.bool_
    return ms.int64 if isinstance(value, int) else ms.float32


def arange(start: Any = 0, end: Any = None, step: Any = 1, *, dtype: DType = None) -> Tensor:
    """Stand in for `mint.arange`; `ops.arange` would stop at a million elements."""
    if end is None:
        start, end = 0, start
    bounds = [as_number(value) for value in (start, end, step)]
    if dtype is None:
        dtype = ms.float32 if any(isinstance(b, float) for b in bounds) else ms.int64
    return Tensor(np.arange(*bounds), dtype)


def linspace(start: Any, end: Any, steps: Any, *, dtype: DType = None) -> Tensor:
    """Stand in for `mint.linspace`."""
    points = np.linspace(as_number(start), as_number(end), int(as_number(steps)))
    return Tensor(points, ms.float32 if dtype is None else dtype)


def full(size: Any, fill_value: Any, *, dtype: DType = None) -> Tensor:
    """Stand in for `mint.full`: without `dtype`, the type follows the Python type of the value."""
    value = as_number(fill_value)
    shape = (size,) if isinstance(size, int) else as_shape((size,))
    return ops.full(shape, value, dtype=_inferred(value) if dtype is None else dtype)


def full_like(input: Tensor, fill_value: Any, *, dtype: DType = None) -> Tensor:
    """Stand in for `mint.full_like`."""
    return full(input.shape, fill_value, dtype=input.dtype if dtype is None else dtype)


def zeros_like(input: Tensor, *, dtype: DType = None) -> Tensor:
    """Stand in for `mint.zeros_like`."""
    return ops.zeros(input.shape, input.dtype if dtype is None else dtype)


def ones_like(input: Tensor, *, dtype: DType = None) -> Tensor:
    """Stand in for `mint.ones_like`."""
    return ops.ones(input.shape, input.dtype if dtype is None else dtype)


def empty(*size: Any, dtype: DType = None, device: str | None = None) -> Tensor:
    """Stand in for `mint.empty`: zeros, so that reading before writing is at least repeatable."""
    return ops.zeros(as_shape(size), ms.float32 if dtype is None else dtype)


def empty_like(input: Tensor, *, dtype: DType = None, device: str | None = None) -> Tensor:
    """Stand in for `mint.empty_like`, by zeros."""
    return zeros_like(input, dtype=dtype)


def clone(input: Tensor) -> Tensor:
    """Stand in for `mint.clone` and `Tensor.clone`; the clone of a Parameter is a plain Tensor."""
    return Tensor(input.asnumpy().copy(), input.dtype)


def numpy_generator(generator: Any = None) -> np.random.Generator:
    """Return a numpy generator for one draw, decided by MindSpore's own random state.

    The state of `generator` (by default the one behind `mindspore.manual_seed`) is read and
    advanced, so seeding and saving or restoring the state work as they do on a device; the numbers
    themselves are numpy's. A program that calls only `mindspore.set_seed`, which `mint` does not
    listen to on a device, is obeyed too as long as the default generator has no seed of its own.
    """
    if generator is None:
        if ms.get_seed() is not None and not _has_own_seed():
            return np.random.default_rng(ops.randint(0, 2**31 - 1, (4,)).asnumpy())
        generator = default_generator
    state = generator.get_state().asnumpy().view(np.int64).copy()
    rng = np.random.default_rng(state.view(np.uint32))
    state[1] += _GENERATOR_STEP
    generator.set_state(Tensor(state.view(np.uint8)))
    return rng


def _has_own_seed() -> bool:
    return bool(default_generator._generator.attrs.get("manual_seed"))


def _standard_normal(shape: tuple[int, ...], dtype: DType, generator: Any) -> Tensor:
    return Tensor(numpy_generator(generator).standard_normal(shape, dtype=np.float32), dtype)


def _uniform(shape: tuple[int, ...], dtype: DType, generator: Any) -> Tensor:
    # Whole multiples of the type's own step: a float32 draw cast to half could round up to 1.
    steps = 2 ** _MANTISSA_BITS.get(dtype, 8)
    return Tensor(numpy_generator(generator).integers(0, steps, shape) / steps, dtype)


def randn(*size: Any, generator: Any = None, dtype: DType = None) -> Tensor:
    """Stand in for `mint.randn`."""
    return _standard_normal(as_shape(size), ms.float32 if dtype is None else dtype, generator)


def randn_like(input: Tensor, *, dtype: DType = None) -> Tensor:
    """Stand in for `mint.randn_like`."""
    return _standard_normal(input.shape, input.dtype if dtype is None else dtype, None)


def rand(*size: Any, generator: Any = None, dtype: DType = None) -> Tensor:
    """Stand in for `mint.rand`: uniform over [0, 1), 1 never included."""
    return _uniform(as_shape(size), ms.float32 if dtype is None else dtype, generator)


def rand_like(input: Tensor, *, dtype: DType = None) -> Tensor:
    """Stand in for `mint.rand_like`."""
    return _uniform(input.shape, input.dtype if dtype is None else dtype, None)


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, generator: Any = None) -> Tensor:
    """Stand in for `mint.normal`: `size` counts when neither `mean` nor `std` is a tensor."""
    tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
    if tensors:
        shape = np.broadcast_shapes(*(t.shape for t in tensors))
        return _standard_normal(shape, tensors[0].dtype, generator) * std + mean
    shape = () if size is None else as_shape(size)
    return _standard_normal(shape, ms.float32, generator) * std + mean


def randint(*args: Any, generator: Any = None, dtype: DType = None) -> Tensor:
    """Stand in for `mint.randint(low=0, high, size)`: integers from `low` to `high - 1`."""
    low, high, size = (0, *args) if len(args) == 2 else args
    draw = numpy_generator(generator).integers(as_number(low), as_number(high), as_shape(size))
    return Tensor(draw, ms.int64 if dtype is None else dtype)


def uniform(self: Tensor, from_: Any = 0.0, to: Any = 1.0, generator: Any = None) -> Tensor:
    """Stand in for `Tensor.uniform`: a new tensor of the shape and type of this one."""
    low, high = as_number(from_), as_number(to)
    if low > high:
        raise ValueError(f"uniform draws from {low} up to {high}, which is less")
    return _uniform(self.shape, self.dtype, generator) * (high - low) + low


def uniform_(self: Tensor, from_: Any = 0, to: Any = 1, *, generator: Any = None) -> Tensor:
    """Stand in for `Tensor.uniform_`: draws in place and returns the tensor itself."""
    self[...] = uniform(self, from_, to, generator)
    return self


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None
) -> Tensor:
    """Stand in for `mint.multinomial`: indices into each row, as often as its weights say."""
    rng, weights = numpy_generator(generator), input.asnumpy().astype(np.float64)
    rows = weights.reshape(-1, weights.shape[-1])
    drawn = [rng.choice(len(row), num_samples, replacement, row / row.sum()) for row in rows]
    return Tensor(np.reshape(drawn, (*weights.shape[:-1], num_samples)), ms.int64)
