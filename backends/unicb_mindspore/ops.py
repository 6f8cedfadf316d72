"""Do the seven tensor operations on MindSpore. Tested on MindSpore CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore
import numpy as np
import numpy.typing as npt
from mindspore import ops

from unicb.ops import Tensor, joinable


class MindSporeOps:
    def chunk(self, x: Tensor, n: int) -> tuple[Tensor, ...]:
        shape = tuple(x.shape)
        if n < 1 or shape[0] % n:
            raise ValueError(f"cannot chunk shape {shape} into {n} equal parts along axis 0")
        rows = shape[0] // n
        return tuple(x[i * rows : (i + 1) * rows] for i in range(n))

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        return ops.cat(joinable(parts))

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return _of_dtype(ops.matmul(_computable(a), _computable(b)), a.dtype)

    def clamp(self, x: Tensor, low: float, high: float) -> Tensor:
        wide = _computable(x)
        # MindSpore's clamp of NaN is not documented; on a CPU it is 0.
        limited = ops.select(ops.isnan(wide), wide, ops.clamp(wide, low, high))
        return _of_dtype(limited, x.dtype)

    def to_uint8(self, x: Tensor) -> npt.NDArray[np.uint8]:
        wide = _computable(x)
        numbers = ops.masked_fill(wide, ops.isnan(wide), 0.0)
        array: npt.NDArray[np.uint8] = ops.clamp(numbers, 0, 255).astype(mindspore.uint8).asnumpy()
        return array

    def to_numpy(self, x: Tensor) -> npt.NDArray[Any]:
        # numpy has no bfloat16; asnumpy may share memory with the tensor.
        wide = x.astype(mindspore.float32) if x.dtype == mindspore.bfloat16 else x
        array: npt.NDArray[Any] = wide.asnumpy().copy()
        return array

    def from_numpy(self, a: npt.NDArray[Any], like: Tensor) -> Tensor:
        return mindspore.Tensor(np.array(a, order="C")).astype(like.dtype)


def _computable(x: Tensor) -> Tensor:
    """Return ``x``; on a CPU, convert bfloat16 to float32, since MindSpore lacks most bfloat16
    kernels there."""
    if x.dtype == mindspore.bfloat16 and mindspore.get_context("device_target") == "CPU":
        return x.astype(mindspore.float32)
    return x


def _of_dtype(x: Tensor, dtype: Any) -> Tensor:
    """Return ``x`` in this dtype, without a cast if it has it: MindSpore would compute one."""
    return x if x.dtype == dtype else x.astype(dtype)
