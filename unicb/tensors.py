"""Compute means, deviations, products and blends of tensors, for callbacks: written once, on the
contract.

Each function stays on the device: it waits for nothing, and its result is a tensor of the dtype of
its arguments, whose number of axes it keeps, so that it combines with them::

    from unicb.tensors import mean, std

    x = step["latents"]
    x = (x - mean(step.ops, x)) / std(step.ops, x)  # each picture by itself

``kept`` says what is combined: all axes but the first ``kept`` ones, which stay as they are. With
1, each row has its own result; with 2, each channel of ``[rows, channels, height, width]``; with 0,
there is one for the whole tensor. What is NaN or infinite gives a result that is not finite.

Sums are made in blocks, of numbers that were scaled before, so that nothing on the way is larger
than the largest element or the result: float16, which ends at 65504, is enough for whole latents.
"Within rounding" below is a share of at most 4e-3 in float16, 1.6e-2 in bfloat16, and 1e-6 in
float32 and float64 (where MindSpore takes Python numbers in float32). Sizes below 1e-3 in float16,
and outside 1e-18..1e18 elsewhere, are not covered: their squares have fewer digits, or none.
"""

from __future__ import annotations

import math

import numpy as np

from unicb.ops import Tensor, TensorOps

__all__ = ["dot", "dtype_name", "lerp", "mean", "norm", "std"]

#: Elements that are summed at once. The square of an element, divided by the mean size in its
#: block, is then at most 128 * 128, which float16 has.
_BLOCK = 128
#: The smallest number that float16 has in full precision.
_SMALLEST = 2.0**-14
#: How large a product of scaled elements may be in float16.
_LARGE = 2.0**15


def mean(ops: TensorOps, x: Tensor, kept: int = 1) -> Tensor:
    """Compute the mean over all axes but the first ``kept``.

    Exact within rounding, as a share of the mean of the elements' sizes.

    Returns:
        A tensor of the shape of ``x``, with 1 in place of each axis that was combined.

    Raises:
        TypeError: the elements are no floating-point numbers.
        ValueError: ``kept`` is not in 0..(number of axes), or there is nothing to take a mean of.
    """
    return _mean(ops, _flat(x, kept)).reshape(_combined(x, kept))


def std(ops: TensorOps, x: Tensor, kept: int = 1) -> Tensor:
    """Compute the standard deviation over all axes but the first ``kept``, of the elements as they
    are (the sum of squares is divided by their number, not by one less).

    Exact within rounding, as a share of itself, also beside a mean that is much larger, as far as
    the differences from the mean are in the dtype's range.

    Returns, Raises:
        As :func:`mean`.
    """
    flat = _flat(x, kept)
    centred = flat - _mean(ops, flat)
    # Beside a large mean, its rounding is not small.
    centred = centred - _mean(ops, centred)
    return _root_mean_square(ops, centred).reshape(_combined(x, kept))


def norm(ops: TensorOps, x: Tensor, kept: int = 1) -> Tensor:
    """Compute the Euclidean norm over all axes but the first ``kept``: the root of the sum of
    squares.

    Exact within rounding, as a share of itself; infinite only where it is beyond the dtype's range.

    Returns, Raises:
        As :func:`mean`.
    """
    flat = _flat(x, kept)
    return (_root_mean_square(ops, flat) * math.sqrt(flat.shape[1])).reshape(_combined(x, kept))


def dot(ops: TensorOps, a: Tensor, b: Tensor, kept: int = 1, average: bool = False) -> Tensor:
    """Sum the products of elements, over all axes but the first ``kept``.

    Exact within rounding, as a share of the product of the two norms.

    In float16 the sum itself may be out of range, and is infinite then: that of 65,536 squares of
    normal numbers is about 65,536. Where only a quotient of two sums is needed, as in a projection,
    take ``average=True``. The product of the two norms has to be below 4e9 there (with ``average``,
    that of the root mean squares is at most that anyway).

    Args:
        average: divide the sum by the number of products.

    Returns, Raises:
        As :func:`mean`; ValueError, too, for tensors of two shapes, naming them.
    """
    if tuple(a.shape) != tuple(b.shape):
        raise ValueError(
            f"dot takes two tensors of one shape, not {tuple(a.shape)} and {tuple(b.shape)}"
        )
    one, other = _flat(a, kept), _flat(b, kept)
    count = one.shape[1]
    # numpy would round the number of elements itself to float16; its root is small enough.
    root = 1.0 if average else math.sqrt(count)
    if dtype_name(a) != "float16":
        product = _mean(ops, one * other) * root * root
    else:
        sizes = [ops.clamp(_root_mean_square(ops, x), _SMALLEST, math.inf) for x in (one, other)]
        # Divided by its root mean square, an element may be as large as the root of their number.
        shrunk = 0.5 ** max(0, math.ceil(math.log2(count / _LARGE) / 2))
        scaled = (one / sizes[0] * shrunk) * (other / sizes[1] * shrunk)
        cosine = _mean(ops, scaled) / shrunk / shrunk
        # Two equal factors for the product of the sizes, one of which may be large, and one small.
        size = sizes[0] ** 0.5 * sizes[1] ** 0.5 * root
        product = cosine * size * size
    return product.reshape(_combined(a, kept))


def lerp(a: Tensor, b: Tensor, weight: float | Tensor) -> Tensor:
    """Blend two tensors: ``a`` for a weight of 0, ``b`` for 1, exactly, and in between what is in
    between; beyond, it goes on in a line.

    The parts combine as tensors do, with axes of 1 repeated. Either has to be finite for the other
    to come out alone.

    Args:
        weight: a number, or a tensor of the dtype of ``a``, such as one with a weight for each row.
    """
    # a + (b - a) * weight would not be b at 1, and b - a may be out of range.
    return a * (1 - weight) + b * weight


def dtype_name(x: Tensor) -> str:
    """Return the name of a tensor's dtype in lower case, the same on every framework:
    ``"float16"``."""
    return str(x.dtype).rpartition(".")[2].lower()


def _flat(x: Tensor, kept: int) -> Tensor:
    """Return the tensor as ``[rows, n]``: a row for each result."""
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
        # The squares are of numbers around 1, whatever the elements are.
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
    """Return the factors ``[size, 1]`` that give the weighted sum of each block, and the weight: a
    power of two, which every dtype has exactly, and so small that no sum is larger than the largest
    element."""
    size = int(blocks.shape[2])
    weight = 0.5 ** (size - 1).bit_length()
    return ops.from_numpy(np.full((size, 1), weight, np.float32), like=blocks), weight
