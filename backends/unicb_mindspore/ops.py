"""The seven tensor operations, on MindSpore. Tested on MindSpore CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore
import numpy as np
import numpy.typing as npt
from mindspore import ops

from unicb.ops import Tensor, joinable

_BFLOAT16 = mindspore.bfloat16


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
        if a.dtype == _BFLOAT16:  # the CPU has no kernel for it
            return ops.matmul(a.astype(mindspore.float32), b.astype(mindspore.float32)).astype(
                _BFLOAT16
            )
        return ops.matmul(a, b)

    def clamp(self, x: Tensor, low: float, high: float) -> Tensor:
        wide = _without_bfloat16(x)
        limited = ops.select(ops.isnan(wide), wide, ops.clamp(wide, low, high))
        return limited.astype(x.dtype)

    def to_uint8(self, x: Tensor) -> npt.NDArray[np.uint8]:
        wide = _without_bfloat16(x)
        # clamp alone gives 0 for NaN on a CPU; what it gives elsewhere is not documented.
        numbers = ops.select(ops.isnan(wide), ops.zeros_like(wide), wide)
        array: npt.NDArray[np.uint8] = ops.clamp(numbers, 0, 255).astype(mindspore.uint8).asnumpy()
        return array

    def to_numpy(self, x: Tensor) -> npt.NDArray[Any]:
        # asnumpy may share memory with the tensor.
        array: npt.NDArray[Any] = _without_bfloat16(x).asnumpy().copy()
        return array

    def from_numpy(self, a: npt.NDArray[Any], like: Tensor) -> Tensor:
        return mindspore.Tensor(np.array(a, order="C")).astype(like.dtype)


def _without_bfloat16(x: Tensor) -> Tensor:
    """bfloat16 as float32: numpy lacks the one, and MindSpore's CPU most kernels for it."""
    return x.astype(mindspore.float32) if x.dtype == _BFLOAT16 else x
