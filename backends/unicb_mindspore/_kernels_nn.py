"""Compute on a CPU in the place of `mindspore.mint.nn`'s functions and layers.

As in `_kernels`: MindSpore 2.7's signatures and defaults, `mindspore.ops` where it has a CPU
kernel. Half precision is widened to float32 inside, wherever a sum over many terms would lose
digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import mindspore as ms
import mindspore.mint.nn.functional as F
import numpy as np
from mindspore import Tensor, ops

from unicb_mindspore._kernels import numpy_generator

Sizes = int | Sequence[int]

_native_interpolate = F.interpolate


def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """Stand in for `mint.nn.functional.gelu`: exact, or the "tanh" approximation."""
    return ops.gelu(input, approximate=approximate)


def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """Stand in for `mint.nn.functional.softplus`: the identity above `threshold / beta`."""
    scaled = input.astype(ms.float32) * beta
    # Bounded, because the exponential may overflow where the identity is taken.
    curve = ops.log1p(ops.exp(ops.minimum(scaled, Tensor(threshold, ms.float32)))) / beta
    return ops.select(scaled > threshold, input, curve.astype(input.dtype))


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Stand in for `mint.nn.functional.dropout`; follows the seeds that `mint.rand` follows."""
    if not 0 <= p <= 1:
        raise ValueError(f"the probability of dropout must lie in [0, 1], not {p}")
    if not training or p == 0:
        return input
    kept = numpy_generator().random(input.shape) >= p
    mask = Tensor(kept / (1 - p) if p < 1 else kept, input.dtype)
    out = input * mask
    if inplace:
        input[...] = out
        return input
    return out


def layer_norm(
    input: Tensor,
    normalized_shape: Sizes,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Stand in for `mint.nn.functional.layer_norm`."""
    shape = _as_tuple(normalized_shape, 1)
    if tuple(input.shape[-len(shape) :]) != shape:
        raise ValueError(f"cannot normalise a tensor of shape {input.shape} over {shape}")
    scale = ops.ones(shape, ms.float32) if weight is None else weight.astype(ms.float32)
    shift = ops.zeros(shape, ms.float32) if bias is None else bias.astype(ms.float32)
    normalise = _layer_norm_from(input.ndim - len(shape), eps)
    return normalise(input.astype(ms.float32), scale, shift)[0].astype(input.dtype)


@cache  # a primitive is made once for each setting, not at each call
def _layer_norm_from(axis: int, eps: float) -> Any:
    return ops.LayerNorm(axis, axis, eps)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
) -> Tensor:
    """Stand in for `mint.nn.functional.embedding`.

    `padding_idx` and `scale_grad_by_freq` concern gradients alone. Rows longer than `max_norm` are
    shortened in the result; the table itself is left as it is, where the device's kernel rewrites
    it.
    """
    rows = ops.gather(weight, input, 0)
    if max_norm is None:
        return rows
    lengths = ops.pow(ops.pow(ops.abs(rows), norm_type).sum(-1, keepdims=True), 1 / norm_type)
    return rows * ops.minimum(max_norm / (lengths + 1e-7), Tensor(1.0, rows.dtype))


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Tensor:
    """Stand in for `mint.nn.functional.pad`; a negative amount of constant padding crops."""
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(f"{len(pad)} amounts of padding do not fit {input.ndim} dimensions")
    if mode != "constant":
        if value:
            raise ValueError(f"padding mode {mode!r} takes no value")
        return ops.pad(input, tuple(pad), mode=mode)
    # Cropped by slicing: MindSpore's CPU kernel now and then answers negative amounts with zeros.
    input = _cropped(input, pad)
    amounts = tuple(max(amount, 0) for amount in pad)
    if not any(amounts):
        return input
    return ops.pad(input, amounts, mode=mode, value=0 if value is None else value)


def _cropped(input: Tensor, pad: Sequence[int]) -> Tensor:
    if min(pad, default=0) >= 0:
        return input
    window = [slice(None)] * input.ndim
    for place, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        axis = input.ndim - 1 - place
        window[axis] = slice(max(-before, 0), input.shape[axis] + min(after, 0))
    return input[tuple(window)]


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Tensor:
    """Stand in for `mint.nn.functional.interpolate`; nearest and trilinear have CPU kernels.

    The others are a product with one matrix per axis. `ops.interpolate` would do for linear and
    bilinear, but its bicubic rounds the weights and is off by as much as 0.002.
    """
    if mode not in ("linear", "bilinear", "bicubic"):
        return _native_interpolate(
            input, size, scale_factor, mode, align_corners, recompute_scale_factor
        )
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate needs exactly one of size and scale_factor")
    axes = input.ndim - 2
    if size is None:
        scales = _per_axis(scale_factor, axes)
        size = tuple(int(n * s) for n, s in zip(input.shape[2:], scales, strict=True))
    out = input.astype(ms.float32)
    for axis, new in zip(range(2, input.ndim), _per_axis(size, axes), strict=True):
        weights = _resizing(input.shape[axis], new, mode == "bicubic", bool(align_corners))
        mixed = ops.matmul(out.swapaxes(axis, -1), Tensor(weights.T, ms.float32))
        out = mixed.swapaxes(axis, -1)
    return out.astype(input.dtype)


def _resizing(old: int, new: int, cubic: bool, align_corners: bool) -> Any:
    """Return the weights with which `old` samples make each of `new` samples of one axis."""
    if align_corners:
        position = np.linspace(0, old - 1, new)
    else:
        position = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.zeros((new, old))
    for offset in range(-1, 3):
        sample = np.floor(position).astype(int) + offset
        distance = np.abs(position - sample)
        share = _cubic(distance) if cubic else np.maximum(1 - distance, 0)
        # Samples beyond the edge are the edge's own, which then gathers several shares.
        np.add.at(weights, (np.arange(new), sample.clip(0, old - 1)), share)
    return weights


def _cubic(distance: Any, a: float = -0.75) -> Any:
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def _as_tuple(value: Any, count: int) -> tuple[int, ...]:
    return (int(value),) * count if isinstance(value, int) else tuple(int(v) for v in value)


def _per_axis(value: Any, count: int) -> tuple[Any, ...]:
    """Give each of `count` axes its own value: a single one, alone or in a sequence, serves all."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * count if len(values) == 1 else values


def _padded_for(
    input: Tensor, weight: Tensor, padding: Any, dilation: tuple[int, ...]
) -> tuple[Tensor, tuple[int, ...]]:
    """Return the input and the symmetric padding left to do; "same" may add a row at the end."""
    axes = len(dilation)
    if padding == "valid":
        return input, (0,) * axes
    if padding != "same":
        return input, _per_axis(padding, axes)
    totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if any(total % 2 for total in totals):
        extra = [amount for total in reversed(totals) for amount in (0, total % 2)]
        input = pad(input, extra)
    return input, tuple(total // 2 for total in totals)


def _convolution(
    kernel: Any, axes: int, input: Tensor, weight: Tensor, bias: Tensor | None, settings: Any
) -> Tensor:
    stride, padding, dilation, groups = settings
    alone = input.ndim == axes + 1
    batch = input.expand_dims(0) if alone else input
    dilations = _per_axis(dilation, axes)
    batch, amounts = _padded_for(batch, weight, padding, dilations)
    out = kernel(batch, weight, bias, _per_axis(stride, axes), "pad", amounts, dilations, groups)
    return out[0] if alone else out


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Stand in for `mint.nn.functional.conv1d`, as a 2-d convolution over one row."""
    settings = (stride, padding, dilation, groups)
    return _convolution(_conv_over_row, 1, input, weight, bias, settings)


def _conv_over_row(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int],
    mode: str,
    padding: tuple[int],
    dilation: tuple[int],
    groups: int,
) -> Tensor:
    row, kernel = input.expand_dims(2), weight.expand_dims(2)
    out = ops.conv2d(row, kernel, bias, (1, *stride), mode, (0, *padding), (1, *dilation), groups)
    return out.squeeze(2)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Stand in for `mint.nn.functional.conv2d`, with or without a batch."""
    settings = (stride, padding, dilation, groups)
    return _convolution(ops.conv2d, 2, input, weight, bias, settings)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Stand in for `mint.nn.functional.conv3d`."""
    settings = (stride, padding, dilation, groups)
    return _convolution(ops.conv3d, 3, input, weight, bias, settings)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """Stand in for `mint.nn.functional.conv_transpose2d`, as a convolution of spread-out input."""
    alone = input.ndim == 3
    spread = _spread(input.expand_dims(0) if alone else input, _per_axis(stride, 2))
    edges: list[int] = []
    for place in (1, 0):
        reach = _per_axis(dilation, 2)[place] * (weight.shape[2 + place] - 1)
        edge = reach - _per_axis(padding, 2)[place]
        edges += [edge, edge + _per_axis(output_padding, 2)[place]]
    spread = pad(spread, edges)
    inputs, outputs, *kernel = weight.shape
    turned = weight.reshape((groups, inputs // groups, outputs, *kernel)).swapaxes(1, 2)
    turned = ops.flip(turned.reshape((groups * outputs, inputs // groups, *kernel)), (2, 3))
    out = conv2d(spread, turned, bias, 1, 0, dilation, groups)
    return out[0] if alone else out


def _spread(input: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Put `stride - 1` zeros between neighbours along the last two axes."""
    (high, wide), (down, across) = input.shape[-2:], stride
    cells = input.reshape((*input.shape[:2], high, 1, wide, 1))
    cells = pad(cells, (0, across - 1, 0, 0, 0, down - 1))
    whole = cells.reshape((*input.shape[:2], high * down, wide * across))
    return whole[:, :, : (high - 1) * down + 1, : (wide - 1) * across + 1]


def avg_pool2d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Stand in for `mint.nn.functional.avg_pool2d`; the default stride is the kernel size."""
    kernel = _per_axis(kernel_size, 2)
    steps = kernel if stride is None or stride == () else _per_axis(stride, 2)
    high, wide = _per_axis(padding, 2)
    edges = (high, high, wide, wide)
    divisor = divisor_override or 0
    return ops.avg_pool2d(input, kernel, steps, edges, ceil_mode, count_include_pad, divisor)


def _convolve(layer: Any, input: Tensor, convolution: Any) -> Tensor:
    padding = layer.padding
    if layer.padding_mode != "zeros":
        input = pad(input, tuple(layer._reversed_padding), mode=layer.padding_mode)
        padding = 0
    settings = (layer.stride, padding, layer.dilation, layer.groups)
    return convolution(input, layer.weight, layer.bias, *settings)


def construct_conv1d(self: Any, input: Tensor) -> Tensor:
    """Stand in for `mint.nn.Conv1d.construct`."""
    return _convolve(self, input, conv1d)


def construct_conv2d(self: Any, input: Tensor) -> Tensor:
    """Stand in for `mint.nn.Conv2d.construct`."""
    return _convolve(self, input, conv2d)


def construct_conv3d(self: Any, input: Tensor) -> Tensor:
    """Stand in for `mint.nn.Conv3d.construct`."""
    return _convolve(self, input, conv3d)


def construct_layer_norm(self: Any, input: Tensor) -> Tensor:
    """Stand in for `mint.nn.LayerNorm.construct`."""
    return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


def construct_embedding(self: Any, input: Tensor) -> Tensor:
    """Stand in for `mint.nn.Embedding.construct`."""
    return embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type or 2.0)


def construct_gelu(self: Any, input: Tensor) -> Tensor:
    """Stand in for `mint.nn.GELU.construct`."""
    return gelu(input, approximate=self.approximate)
