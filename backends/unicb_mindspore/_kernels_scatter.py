"""Scatter in place on a CPU, as MindSpore does: put, or add, values at places that are given.

Written by the rules of `_kernels`. An index may count from the end; one that is out of range raises
IndexError, where a device may do anything.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from unicb_mindspore._kernels import axis_of

_REDUCTIONS = {"add": np.add, "multiply": np.multiply}


def scatter_(
    self: Tensor,
    dim: int,
    index: Tensor,
    src: Any = None,
    *,
    value: Any = None,
    reduce: str | None = None,
) -> Tensor:
    """Stand in for `Tensor.scatter_`, with a tensor or one number, and perhaps a reduction.

    Of several values for one place, the last is put; `reduce` "add" and "multiply" take them all.
    """
    if (src is None) == (value is None):
        raise ValueError("scatter_ needs exactly one of src and value")
    if reduce not in (None, *_REDUCTIONS):
        raise ValueError(f'the reduction must be "add" or "multiply", not {reduce!r}')
    return _scattered(self, dim, index, value if src is None else src, reduce)


def scatter_add_(self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Stand in for `Tensor.scatter_add_`: adds in place and returns the tensor itself."""
    return _scattered(self, dim, index, src, "add")


def _scattered(self: Tensor, dim: int, index: Tensor, src: Any, reduce: str | None) -> Tensor:
    axis = axis_of(dim, self.ndim)
    if not index.size:
        return self
    if index.ndim != self.ndim:
        raise ValueError(f"an index of shape {index.shape} does not fit a tensor of {self.shape}")
    if isinstance(src, Tensor) and src.ndim:
        src = _corner(src, index.shape)
    cells = list(np.indices(index.shape, sparse=True))
    cells[axis] = index.asnumpy()
    out = _host(self)
    if reduce is None:
        out[tuple(cells)] = src
    else:
        _REDUCTIONS[reduce].at(out, tuple(cells), src)
    self[...] = Tensor(out, self.dtype)
    return self


def _corner(src: Tensor, shape: tuple[int, ...]) -> Any:
    """Return the first values along each axis, as many as there are places for."""
    if src.ndim != len(shape) or any(n < m for n, m in zip(src.shape, shape, strict=True)):
        raise ValueError(f"values of shape {src.shape} do not fill an index of shape {shape}")
    return _host(src)[tuple(slice(n) for n in shape)]


def _host(tensor: Tensor) -> Any:
    """Copy to numpy; half precision is widened, for sums of many terms."""
    wide = tensor.astype(ms.float32) if tensor.dtype == ms.float16 else tensor
    return wide.asnumpy().copy()
