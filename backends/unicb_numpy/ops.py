"""Define the seven operations on the reference's tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from unicb.ops import joinable
from unicb.strict import StrictTensor

__all__ = ["NumpyOps", "StrictTensor"]


class NumpyOps:
    def chunk(self, x: StrictTensor, n: int) -> tuple[StrictTensor, ...]:
        if n < 1 or x.shape[0] % n:
            raise ValueError(f"cannot chunk shape {x.shape} into {n} equal parts along axis 0")
        return tuple(StrictTensor(part) for part in np.split(x.data, n))

    def concat(self, parts: Sequence[StrictTensor]) -> StrictTensor:
        return StrictTensor(np.concatenate([part.data for part in joinable(parts)]))

    def matmul(self, a: StrictTensor, b: StrictTensor) -> StrictTensor:
        return StrictTensor(np.matmul(a.data, b.data))

    def clamp(self, x: StrictTensor, low: float, high: float) -> StrictTensor:
        return StrictTensor(np.clip(x.data, low, high))

    def to_uint8(self, x: StrictTensor) -> npt.NDArray[np.uint8]:
        clean = np.clip(np.where(np.isnan(x.data), 0, x.data), 0, 255)
        return cast("npt.NDArray[np.uint8]", clean.astype(np.uint8))

    def to_numpy(self, x: StrictTensor) -> npt.NDArray[Any]:
        return x.data.copy()

    def from_numpy(self, a: npt.NDArray[Any], like: StrictTensor) -> StrictTensor:
        return StrictTensor(np.array(a, dtype=like.dtype))
