"""Compute on a CPU, in the place of `mindspore.mint`'s functions: shapes, order, reductions,
products.

Written by the rules of `_kernels`: MindSpore 2.7's signatures, its own `mindspore.ops` first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from unicb_mindspore._kernels import DType, as_number, as_shape, axis_of, normal

Number = int | float
Dims = int | Sequence[int] | None


def _axes(dim: Dims, ndim: int) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(ndim))
    dims = (dim,) if isinstance(dim, int) else dim
    return tuple(axis_of(d, ndim) for d in dims) or tuple(range(ndim))


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Stand in for `mint.stack`."""
    return ops.stack(list(tensors), dim)


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """Stand in for `mint.narrow`; a negative `start` counts from the end."""
    axis = axis_of(dim, input.ndim)
    start = int(as_number(start))
    first = start + input.shape[axis] if start < 0 else start
    if length < 0 or not 0 <= first <= input.shape[axis] - length:
        raise ValueError(f"cannot take {length} from {start} along an axis of {input.shape[axis]}")
    return input[(slice(None),) * axis + (slice(first, first + length),)]


def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Stand in for `mint.split`: parts of one size, the last perhaps smaller, or of sizes given."""
    length = tensor.shape[axis_of(dim, tensor.ndim)]
    sections = split_size_or_sections
    if isinstance(sections, int):
        if sections <= 0:
            raise ValueError(f"split needs a positive size, not {sections}")
        sections = [min(sections, length - at) for at in range(0, length, sections)] or [0]
    if sum(sections) != length:
        raise ValueError(f"the sections {list(sections)} do not add up to {length}")
    starts = np.cumsum([0, *sections])[:-1]
    return tuple(narrow(tensor, dim, int(a), int(n)) for a, n in zip(starts, sections, strict=True))


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Stand in for `mint.unbind`."""
    axis = axis_of(dim, input.ndim)
    return tuple(input[(slice(None),) * axis + (i,)] for i in range(input.shape[axis]))


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Stand in for `mint.flatten`; a 0-d tensor becomes one of one element."""
    shape = tuple(input.shape)
    if not shape:
        return input.reshape((1,))
    first, last = axis_of(start_dim, len(shape)), axis_of(end_dim, len(shape))
    if first > last:
        raise ValueError(f"start_dim {start_dim} comes after end_dim {end_dim}")
    merged = int(np.prod(shape[first : last + 1]))
    return input.reshape((*shape[:first], merged, *shape[last + 1 :]))


def repeat_interleave(
    input: Tensor, repeats: Any, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Stand in for `mint.repeat_interleave` and the Tensor method; `output_size` is only a hint."""
    if dim is None:
        input, dim = input.reshape((-1,)), 0
    counts = repeats.asnumpy() if isinstance(repeats, Tensor) else np.asarray(repeats)
    rows = np.repeat(np.arange(input.shape[dim]), counts)
    return index_select(input, dim, Tensor(rows, ms.int32))


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Stand in for `mint.index_select`."""
    return ops.gather(input, index, axis_of(dim, input.ndim))


def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """Stand in for `Tensor.repeat`: whole copies along each axis, with new axes in front."""
    counts = as_shape(repeats)
    if len(counts) < input.ndim:
        raise ValueError(f"repeat needs a count for each of {input.ndim} axes, not {len(counts)}")
    return ops.tile(input, counts)


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Stand in for `mint.roll` and the Tensor method."""
    axes = None if dims is None or dims == () else dims
    return Tensor(np.roll(input.asnumpy(), shifts, axes), input.dtype)


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """Stand in for `mint.tril`."""
    return ops.tril(input, diagonal)


def masked_fill_(self: Tensor, mask: Tensor, value: Any) -> Tensor:
    """Stand in for `Tensor.masked_fill_`: fills in place and returns the tensor itself."""
    self[...] = self.masked_fill(mask, value)
    return self


def zero_(self: Tensor) -> Tensor:
    """Stand in for `Tensor.zero_`: fills in place and returns the tensor itself."""
    self[...] = ops.zeros(self.shape, self.dtype)
    return self


def clamp_(self: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Stand in for `Tensor.clamp_`: clips in place and returns the tensor itself."""
    self[...] = ops.clamp(self, min, max).astype(self.dtype)
    return self


def normal_(self: Tensor, mean: Number = 0, std: Number = 1, *, generator: Any = None) -> Tensor:
    """Stand in for `Tensor.normal_`: draws in place and returns the tensor itself."""
    self[...] = normal(float(mean), float(std), self.shape, generator).astype(self.dtype)
    return self


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Stand in for `mint.nonzero` and the method: rows of indices, or one column per axis."""
    found = np.argwhere(input.asnumpy())
    if as_tuple:
        return tuple(Tensor(column, ms.int64) for column in found.T)
    return Tensor(found, ms.int64)


def _order(values: Any, axis: int, descending: bool) -> Any:
    """Sort indices; equal values keep their order in both directions."""
    if not descending:
        return np.argsort(values, axis=axis, kind="stable")
    backwards = np.argsort(np.flip(values, axis), axis=axis, kind="stable")
    return values.shape[axis] - 1 - np.flip(backwards, axis)


def sort(
    input: Tensor, *, dim: int = -1, descending: bool = False, stable: bool = False
) -> tuple[Tensor, Tensor]:
    """Stand in for `mint.sort`; always stable."""
    values = input.asnumpy()
    order = _order(values, dim, descending)
    ranked = np.take_along_axis(values, order, dim)
    return Tensor(ranked, input.dtype), Tensor(order, ms.int64)


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Stand in for `mint.argsort`; always stable."""
    return Tensor(_order(input.asnumpy(), dim, descending), ms.int64)


def topk(
    input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Tensor, Tensor]:
    """Stand in for `mint.topk`; the result is always in order."""
    values, order = sort(input, dim=dim, descending=largest)
    return narrow(values, dim, 0, k), narrow(order, dim, 0, k)


def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Stand in for `mint.median`: of an even number of values, the lower of the middle two."""
    if dim is None:
        return median(input.reshape((-1,)), 0)[0]
    middle = (input.shape[dim] - 1) // 2
    values, indices = (narrow(part, dim, middle, 1) for part in sort(input, dim=dim))
    return (values, indices) if keepdim else (values.squeeze(dim), indices.squeeze(dim))


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Stand in for `mint.argmax`: the first of equal values."""
    return Tensor(_arg(np.argmax, input, dim, keepdim), ms.int64)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Stand in for `mint.argmin`: the first of equal values."""
    return Tensor(_arg(np.argmin, input, dim, keepdim), ms.int64)


def _arg(pick: Any, input: Tensor, dim: int | None, keepdim: bool) -> Any:
    return pick(input.asnumpy(), axis=dim, keepdims=keepdim and dim is not None)


def equal(input: Tensor, other: Tensor) -> bool:
    """Stand in for `mint.equal`: one truth value for the whole of two tensors."""
    return bool(np.array_equal(input.asnumpy(), other.asnumpy()))


def cumsum(input: Tensor, dim: int, dtype: DType = None) -> Tensor:
    """Stand in for `mint.cumsum`; integers and truth values are summed as int64."""
    if dtype is None:
        dtype = input.dtype if input.is_floating_point() else ms.int64
    return ops.cumsum(input.astype(dtype), axis_of(dim, input.ndim))


def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None
) -> Tensor:
    """Stand in for `mint.diff`."""
    parts = [part for part in (prepend, input, append) if part is not None]
    out = ops.cat(parts, axis_of(dim, input.ndim)) if len(parts) > 1 else input
    for _ in range(n):
        length = out.shape[dim]
        upper, lower = narrow(out, dim, 1, length - 1), narrow(out, dim, 0, length - 1)
        out = upper.logical_xor(lower) if out.dtype == ms.bool_ else upper - lower
    return out


def var(input: Tensor, dim: Dims = None, *, correction: int = 1, keepdim: bool = False) -> Tensor:
    """Stand in for `mint.var`, computed in float32 for half precision."""
    return _variance(input, dim, correction, keepdim).astype(input.dtype)


def std(input: Tensor, dim: Dims = None, *, correction: int = 1, keepdim: bool = False) -> Tensor:
    """Stand in for `mint.std`, computed in float32 for half precision."""
    return ops.sqrt(_variance(input, dim, correction, keepdim)).astype(input.dtype)


def method_var(
    self: Tensor,
    axis: Dims = None,
    ddof: int | None = None,
    keepdims: bool | None = None,
    *,
    dim: Dims = None,
    correction: int | None = None,
    keepdim: bool | None = None,
) -> Tensor:
    """Stand in for `Tensor.var`, which is two functions: that of `mint`, by the names after `axis`,
    `ddof` and `keepdims`, and an older one that by default divides by the whole number of values.
    """
    old, new = (axis, ddof, keepdims), (dim, correction, keepdim)
    if all(given is None for given in new):
        dims, correction, keep = axis, ddof or 0, bool(keepdims)
    elif all(given is None for given in old):
        dims, correction, keep = dim, 1 if correction is None else correction, bool(keepdim)
    else:
        raise TypeError("takes axis, ddof and keepdims, or else dim, correction and keepdim")
    dtype = self.dtype if self.is_floating_point() else ms.float32
    return _variance(self, dims, correction, keep).astype(dtype)


def method_std(self: Tensor, *arguments: Any, **options: Any) -> Tensor:
    """Stand in for `Tensor.std`, with the arguments of `method_var`."""
    wide = _widened(self)
    dtype = self.dtype if self.is_floating_point() else ms.float32
    return ops.sqrt(method_var(wide, *arguments, **options)).astype(dtype)


def _variance(input: Tensor, dim: Dims, correction: int, keepdim: bool) -> Tensor:
    axes = _axes(dim, input.ndim)
    wide = _widened(input)
    count = int(np.prod([input.shape[axis] for axis in axes]))
    squares = ops.square(wide - wide.mean(axes, keep_dims=True))
    return squares.sum(axes, keepdims=keepdim) / max(count - correction, 0)


def _widened(input: Tensor) -> Tensor:
    return input if input.dtype in (ms.float32, ms.float64) else input.astype(ms.float32)


def norm(
    input: Tensor, p: Any = "fro", dim: Dims = None, keepdim: bool = False, *, dtype: DType = None
) -> Tensor:
    """Stand in for `mint.norm`: of the elements for a number or "fro", of a matrix for "nuc"."""
    wanted = dtype or (input.dtype if input.is_floating_point() else ms.float32)
    axes = _axes(dim, input.ndim)
    if p == "nuc":
        values = _widened(input).asnumpy()
        return Tensor(np.linalg.norm(values, "nuc", axes, keepdim), wanted)
    if isinstance(p, str) and p != "fro":
        raise ValueError(f'the norm must be a number, "fro" or "nuc", not {p!r}')
    power = 2.0 if p == "fro" else float(p)
    return _vector_norm(ops.abs(_widened(input)), power, axes, keepdim).astype(wanted)


def _vector_norm(size: Tensor, p: float, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    if not axes:
        return (size != 0).astype(size.dtype) if p == 0 else size
    if abs(p) == float("inf"):
        return (ops.amax if p > 0 else ops.amin)(size, axes, keepdims=keepdim)
    if p == 0:
        return (size != 0).astype(size.dtype).sum(axes, keepdims=keepdim)
    if p == 2:
        return ops.sqrt(ops.square(size).sum(axes, keepdims=keepdim))
    return ops.pow(ops.pow(size, p).sum(axes, keepdims=keepdim), 1 / p)


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Stand in for `mint.einsum`: an equation, or operands with lists of axis numbers between."""
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    arguments = (equation, *operands)
    dtype = next(arg.dtype for arg in arguments if isinstance(arg, Tensor))
    host = [_widened_host(arg) if isinstance(arg, Tensor) else arg for arg in arguments]
    return Tensor(np.einsum(*host), dtype)


def _widened_host(tensor: Tensor) -> Any:
    return (tensor.astype(ms.float32) if tensor.dtype == ms.float16 else tensor).asnumpy()


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """Stand in for `mint.outer`."""
    return input.reshape((-1, 1)) * vec2.reshape((1, -1))


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Stand in for `mint.mm`."""
    if input.ndim != 2 or mat2.ndim != 2:
        raise ValueError(f"mm multiplies two matrices, not shapes {input.shape} and {mat2.shape}")
    return ops.matmul(input, mat2)


def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1
) -> Tensor:
    """Stand in for `mint.addmm`; with `beta` 0 the values of `input` do not count."""
    return _added(input, mm(mat1, mat2), beta, alpha)


def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1
) -> Tensor:
    """Stand in for `mint.baddbmm`; with `beta` 0 the values of `input` do not count."""
    return _added(input, ops.matmul(batch1, batch2), beta, alpha)


def _added(input: Tensor, product: Tensor, beta: Number, alpha: Number) -> Tensor:
    scaled = product * alpha
    return scaled if beta == 0 else scaled + input * beta


def atan2(input: Tensor, other: Tensor) -> Tensor:
    """Stand in for `mint.atan2`; of integers and truth values, the angles are float32."""
    return ops.atan2(*(x if x.is_floating_point() else x.float() for x in (input, other)))


def mul(input: Any, other: Any) -> Tensor:
    """Stand in for `mint.mul`, of two tensors or of a tensor and a number."""
    return input * other


def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """Stand in for `mint.unique`; the result is always in order."""
    host = input.asnumpy()
    found, inverse, counts = np.unique(host, return_inverse=True, return_counts=True, axis=dim)
    results = [Tensor(found, input.dtype)]
    if return_inverse:
        results.append(Tensor(inverse.reshape(host.shape if dim is None else -1), ms.int64))
    if return_counts:
        results.append(Tensor(counts, ms.int64))
    return tuple(results) if len(results) > 1 else results[0]


def vector_norm(
    x: Tensor, ord: Number = 2, dim: Dims = None, keepdim: bool = False, *, dtype: DType = None
) -> Tensor:
    """Stand in for `mint.linalg.vector_norm`; with `dtype`, `x` is cast before the sum."""
    return norm(x if dtype is None else x.astype(dtype), ord, dim, keepdim)
