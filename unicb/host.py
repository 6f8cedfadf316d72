"""Do the tensor operations on plain numpy arrays, for work that a framework does on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]


class HostOps:
    """The operations of :class:`unicb.TensorOps` but ``concat``; tensors are ``numpy.ndarray``."""

    def chunk(self, x: _Array, n: int) -> tuple[_Array, ...]:
        if n < 1 or x.shape[0] % n:
            raise ValueError(f"cannot chunk shape {x.shape} into {n} equal parts along axis 0")
        return tuple(np.split(x, n))

    def matmul(self, a: _Array, b: _Array) -> _Array:
        product: _Array = np.matmul(a, b)
        return product

    def clamp(self, x: _Array, low: float, high: float) -> _Array:
        return np.clip(x, low, high)

    def to_uint8(self, x: _Array) -> npt.NDArray[np.uint8]:
        # fmax and fmin turn NaN into the other argument.
        limited = np.fmin(np.fmax(x, 0), 255)
        return limited.astype(np.uint8)

    def to_numpy(self, x: _Array) -> _Array:
        return x.copy()

    def from_numpy(self, a: _Array, like: _Array) -> _Array:
        return np.array(a, dtype=like.dtype)
