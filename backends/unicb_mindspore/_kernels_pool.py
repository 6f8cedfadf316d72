"""Pool on a CPU, and normalise batches, in the place of `mindspore.mint.nn`'s functions and layers.

Written by the rules of `_kernels_nn`.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, ops

from unicb_mindspore._kernels_nn import Sizes, _per_axis, avg_pool2d


def avg_pool3d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Stand in for `mint.nn.functional.avg_pool3d`; the default stride is the kernel size."""
    kernel = _per_axis(kernel_size, 3)
    steps = kernel if stride is None or stride == () else _per_axis(stride, 3)
    edges = tuple(edge for amount in _per_axis(padding, 3) for edge in (amount, amount))
    alone = input.ndim == 4
    batch = input.expand_dims(0) if alone else input
    divisor = divisor_override or 0
    out = ops.avg_pool3d(batch, kernel, steps, edges, ceil_mode, count_include_pad, divisor)
    return out[0] if alone else out


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Stand in for `mint.nn.functional.adaptive_avg_pool2d`; None keeps the size of an axis."""
    wanted = _per_axis(output_size, 2)
    sizes = tuple(n if w is None else w for n, w in zip(input.shape[-2:], wanted, strict=True))
    return ops.adaptive_avg_pool2d(input, sizes)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Stand in for `mint.nn.functional.batch_norm`, for inference: `training` raises ValueError."""
    if training or running_mean is None or running_var is None:
        raise ValueError("no CPU batch normalisation for training: it takes statistics to be given")
    shape = (1, -1) + (1,) * (input.ndim - 2)

    def column(part: Tensor) -> Tensor:
        return part.astype(ms.float32).reshape(shape)

    out = input.astype(ms.float32) - column(running_mean)
    out = out * ops.rsqrt(column(running_var) + eps)
    if weight is not None:
        out = out * column(weight)
    if bias is not None:
        out = out + column(bias)
    return out.astype(input.dtype)


def construct_avg_pool2d(self: Any, input: Tensor) -> Tensor:
    """Stand in for `mint.nn.AvgPool2d.construct`."""
    settings = (self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override)
    return avg_pool2d(input, self.kernel_size, self.stride, *settings)
