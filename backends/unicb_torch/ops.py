"""Do the seven tensor operations on torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unicb.ops import Tensor, joinable
from unicb_torch.accelerators import pinned_memory, record, streams_of


class TorchOps:
    def chunk(self, x: Tensor, n: int) -> tuple[Tensor, ...]:
        shape = tuple(x.shape)
        if n < 1 or shape[0] % n:
            raise ValueError(f"cannot chunk shape {shape} into {n} equal parts along axis 0")
        return tuple(x.split(shape[0] // n)) if shape[0] else (x,) * n

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(joinable(parts))

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b)

    def clamp(self, x: Tensor, low: float, high: float) -> Tensor:
        return torch.clamp(x, low, high)

    def to_uint8(self, x: Tensor) -> npt.NDArray[np.uint8]:
        limited = torch.nan_to_num(x, nan=0.0).clamp(0, 255)
        array: npt.NDArray[np.uint8] = _to_host(limited.to(torch.uint8)).numpy()
        return array

    def to_numpy(self, x: Tensor) -> npt.NDArray[Any]:
        x = x.detach()
        wide = x.float() if x.dtype == torch.bfloat16 else x
        array: npt.NDArray[Any] = _to_host(wide).numpy()
        return array.copy() if x.device.type == "cpu" else array

    def from_numpy(self, a: npt.NDArray[Any], like: Tensor) -> Tensor:
        # A copy, so that later writes to the host array do not reach it, and there are no negative
        # strides, which torch refuses.
        host = torch.from_numpy(np.array(a, order="C")).to(dtype=like.dtype)
        pinned = None if streams_of(like.device) is None else pinned_memory(host)
        if pinned is None:
            return host.to(device=like.device)
        return pinned.copy_(host).to(like.device, non_blocking=True)


def _to_host(x: torch.Tensor) -> torch.Tensor:
    """Return ``x.cpu()``. On a device with streams, the host waits only for the work queued so far
    on the current stream, while ``cpu()`` would wait for other threads' work, too."""
    streams = streams_of(x.device)
    host = None if streams is None else pinned_memory(x)
    if streams is None or host is None:
        return x.cpu()
    host.copy_(x, non_blocking=True)
    record(streams, x.device, blocking=True).synchronize()
    return host
