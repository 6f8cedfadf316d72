"""Compute means, deviations, products and blends of tensors, for callbacks on every framework.

Each function stays on the device and waits for nothing. Its result has the dtype and the number of
axes of its arguments, so that it can be combined with them::

    from unicb.tensors import mean, std

    x = step["latents"]
    x = (x - mean(step.ops, x)) / std(step.ops, x)  # each picture by itself

The first ``kept`` axes stay, and all others are combined. With 1, each row has its own result; with
2, each channel of ``[rows, channels, height, width]``; with 0, the whole tensor has one. NaN or
infinite elements give a result that is not finite.

Sums are made in blocks of scaled numbers, so that no intermediate number is larger than the largest
element or the result: float16, whose largest number is 65504, is enough for whole latents. "Within
rounding" below means a relative error of at most 4e-3 in float16, 1.6e-2 in bfloat16, and 1e-6 in
float32 and float64 (where MindSpore takes Python numbers in float32). Sizes below 1e-3 in float16,
and outside 1e-18..1e18 elsewhere, are not covered: their squares have fewer digits, or none.
"""

from __future__ import annotations

import math

import numpy as np

from unicb.ops import Tensor, TensorOps

__all__ = ["dot", "dtype_name", "lerp", "mean", "norm", "std"]

#: How many elements are summed at once. The square of an element, divided by its block's mean size,
#: is then at most 128 * 128, which float16 can hold.
_BLOCK = 128
#: The smallest number that float16 has in full precision.
_SMALLEST = 2.0**-14
#: The largest product of scaled elements that is allowed in float16.
_LARGE = 2.0**15


def mean(ops: TensorOps, x: Tensor, kept: int = 1) -> Tensor:
    """Compute the mean over all axes but the first ``kept``.

    Exact within rounding, relative to the mean of the elements' absolute values.

    Returns:
        A tensor of the shape of ``x``, with size 1 along each combined axis.

    Raises:
        TypeError: the dtype of ``x`` is not floating-point.
        ValueError: ``kept`` is not in 0..(number of axes), or there are no elements to combine.
    """
    return _mean(ops, _flat(x, kept)).reshape(_combined(x, kept))


def std(ops: TensorOps, x: Tensor, kept: int = 1) -> Tensor:
    """Compute the standard deviation over all axes but the first ``kept`` (the sum of squares is
    divided by the number of elements, not by one less).

    Exact within rounding, relative to the result, even if the mean is much larger, as long as the
    differences from the mean are in the dtype's range.

    Returns, Raises:
        As :func:`mean`.
    """
    flat = _flat(x, kept)
    centred = flat - _mean(ops, flat)
    # If the mean is large, its rounding error is not small.
    centred = centred - _mean(ops, centred)
    return _root_mean_square(ops, centred).reshape(_combined(x, kept))


def norm(ops: TensorOps, x: Tensor, kept: int = 1) -> Tensor:
    """Compute the Euclidean norm over all axes but the first ``kept``: the root of the sum of
    squares.

    Exact within rounding, relative to the result; infinite only if the norm is beyond the dtype's
    range.

    Returns, Raises:
        As :func:`mean`.
    """
    flat = _flat(x, kept)
    return (_root_mean_square(ops, flat) * math.sqrt(flat.shape[1])).reshape(_combined(x, kept))


def dot(ops: TensorOps, a: Tensor, b: Tensor, kept: int = 1, average: bool = False) -> Tensor:
    """Sum the products of elements, over all axes but the first ``kept``.

    Exact within rounding, relative to the product of the two norms.

    In float16 the sum itself may be out of range, and is infinite then: the sum of the squares of
    65,536 normally distributed numbers is about 65,536. If only a quotient of two sums is needed,
    as in a projection, use ``average=True``. Without ``average``, the product of the two norms has
    to be below 4e9 in float16.

    Args:
        average: True: divide the sum by the number of products.

    Returns, Raises:
        As :func:`mean`; also ValueError if the shapes of ``a`` and ``b`` differ.
    """
    if tuple(a.shape) != tuple(b.shape):
        raise ValueError(
            f"dot takes two tensors of one shape, not {tuple(a.shape)} and {tuple(b.shape)}"
        )
    one, other = _flat(a, kept), _flat(b, kept)
    count = one.shape[1]
    # numpy would round the number of elements to float16; its square root fits.
    root = 1.0 if average else math.sqrt(count)
    if dtype_name(a) != "float16":
        product = _mean(ops, one * other) * root * root
    else:
        sizes = [ops.clamp(_root_mean_square(ops, x), _SMALLEST, math.inf) for x in (one, other)]
        # Divided by the root mean square, an element is at most the square root of the element
        # count.
        shrunk = 0.5 ** max(0, math.ceil(math.log2(count / _LARGE) / 2))
        scaled = (one / sizes[0] * shrunk) * (other / sizes[1] * shrunk)
        cosine = _mean(ops, scaled) / shrunk / shrunk
        # Multiply by the root of the product of the sizes twice: one size may be large, one small.
        size = sizes[0] ** 0.5 * sizes[1] ** 0.5 * root
        product = cosine * size * size
    return product.reshape(_combined(a, kept))


def lerp(a: Tensor, b: Tensor, weight: float | Tensor) -> Tensor:
    """Blend two tensors linearly: exactly ``a`` for a weight of 0, exactly ``b`` for 1; weights
    below 0 and above 1 extrapolate.

    Shapes broadcast. If one tensor is not finite, neither is the result, also for a weight of 0 or
    1.

    Args:
        weight: a number, or a tensor with the dtype of ``a``, such as one weight per row.
    """
    # a + (b - a) * weight would not be exactly b at 1, and b - a may be out of range.
    return a * (1 - weight) + b * weight


def dtype_name(x: Tensor) -> str:
    """Return the name of a tensor's dtype in lower case, the same on every framework:
    ``"float16"``."""
    return str(x.dtype).rpartition(".")[2].lower()


def _flat(x: Tensor, kept: int) -> Tensor:
    """Return the tensor reshaped to ``[rows, n]``, one row for each result."""
    shape = tuple(x.shape)
    if not 0 <= kept <= len(shape):
        raise ValueError(f"kept must be a number of axes in 0..{len(shape)}, not {kept}")
    if "float" not in dtype_name(x):
        raise TypeError(f"only floating-point tensors have these, not one of dtype {x.dtype}")
    count = math.prod(shape[kept:])
    if not count:
        raise ValueError(f"a tensor of shape {shape} has no elements beyond its first {kept} axes")
    return x.reshape((math.prod(shape[:kept]), count))


def _combined(x: Tensor, kept: int) -> tuple[int, ...]:
    return tuple(x.shape[:kept]) + (1,) * (len(x.shape) - kept)


def _mean(ops: TensorOps, flat: Tensor) -> Tensor:
    """Compute the means ``[rows, 1]`` of ``[rows, n]``."""
    scale = 1.0 / flat.shape[1]
    while True:
        blocks = _blocks(ops, flat)
        weights, weight = _weights(ops, blocks)
        flat = ops.matmul(blocks, weights).reshape(blocks.shape[:2])
        scale /= weight
        if flat.shape[1] == 1:
            return flat * scale


def _root_mean_square(ops: TensorOps, flat: Tensor) -> Tensor:
    """Compute the roots of the mean squares, ``[rows, 1]``, of ``[rows, n]``."""
    if dtype_name(flat) != "float16":
        return _mean(ops, flat * flat) ** 0.5
    scale = 1.0 / flat.shape[1]
    while True:
        blocks = _blocks(ops, flat)
        weights, weight = _weights(ops, blocks)
        sizes = ops.clamp(blocks, 0.0, math.inf) - ops.clamp(blocks, -math.inf, 0.0)
        # The elements were scaled to around 1 before they are squared.
        size = ops.clamp(ops.matmul(sizes, weights), _SMALLEST, math.inf)
        parts = blocks / size
        flat = (ops.matmul(parts * parts, weights) ** 0.5 * size).reshape(blocks.shape[:2])
        scale /= weight
        if flat.shape[1] == 1:
            return flat * math.sqrt(scale)


def _blocks(ops: TensorOps, flat: Tensor) -> Tensor:
    """Split ``[rows, n]`` into ``[rows, blocks, at most 128]``, with zeros at the end."""
    rows, count = flat.shape
    blocks = -(-count // _BLOCK)
    size = -(-count // blocks)
    if missing := blocks * size - count:
        columns = flat.swapaxes(0, 1)
        flat = ops.concat([columns, columns[:missing] * 0]).swapaxes(0, 1)
    return flat.reshape((rows, blocks, size))


def _weights(ops: TensorOps, blocks: Tensor) -> tuple[Tensor, float]:
    """Return the factors ``[size, 1]`` for the weighted sum of each block, and the weight: a power
    of two, exact in every dtype, so small that no sum exceeds the largest element."""
    size = int(blocks.shape[2])
    weight = 0.5 ** (size - 1).bit_length()
    return ops.from_numpy(np.full((size, 1), weight, np.float32), like=blocks), weight
