"""Define the tensor contract: everything that a callback may do with a tensor, on every framework.

On a tensor itself: ``.shape``, ``.dtype``, ``.reshape``, ``.swapaxes``, basic indexing (integers,
slices with positive steps, ``...`` and ``None``), ``+ - * /`` with tensors and Python numbers, and
``**`` with a Python number (NaN for a negative number to a fraction). Everything else is one of
seven operations: five verbs (:meth:`~TensorOps.chunk`, :meth:`~TensorOps.concat`,
:meth:`~TensorOps.matmul`, :meth:`~TensorOps.clamp`, :meth:`~TensorOps.to_uint8`) and two doors
between host and device (:meth:`~TensorOps.to_numpy`, :meth:`~TensorOps.from_numpy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

#: A tensor of the pipeline's framework. Its type is known only at run time.
Tensor: TypeAlias = Any


class TensorOps(Protocol):
    """``TensorOps`` are the seven operations that a backend supplies for its framework's tensors.

    No verb changes its argument. Every verb but :meth:`to_uint8` keeps dtype and device. Only
    :meth:`to_uint8` and :meth:`to_numpy` wait for the device.

    Example:
        >>> class Halves(Callback):
        ...     tensors = ("latents",)
        ...     def on_step_end(self, step):
        ...         first, second = step.ops.chunk(step["latents"], 2)
        ...         step["latents"] = step.ops.concat([first, step.ops.clamp(second, -4.0, 4.0)])
        >>> images = bind(pipe, Halves())(["a red star", "a green ring"])
    """

    def chunk(self, x: Tensor, n: int) -> tuple[Tensor, ...]:
        """Split ``x`` along axis 0 into exactly ``n`` equal parts.

        Raises:
            ValueError: ``n`` does not divide ``x.shape[0]``, or is not positive; the message has
                the shape.
        """
        ...

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        """Join tensors, in this order, along axis 0. ``parts`` may contain one tensor several
        times.

        The parts have one dtype, one device, and the same sizes along all other axes.

        Raises:
            ValueError: ``parts`` is empty, a part has no axes, or the parts do not fit together;
                the message has the shapes and dtypes. A backend calls :func:`joinable` for this
                check.
        """
        ...

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply matrices by numpy's rules: ``(…, i, k) @ (…, k, j) -> (…, i, j)``, batch
        dimensions broadcast.

        The result has the dtype and device that ``a`` and ``b`` share. If the device has no kernel
        for a half-precision dtype, the product is computed in float32 and rounded once.
        """
        ...

    def clamp(self, x: Tensor, low: float, high: float) -> Tensor:
        """Limit every element to ``[low, high]``. NaN stays NaN."""
        ...

    def to_uint8(self, x: Tensor) -> npt.NDArray[np.uint8]:
        """Return a host array of the same shape, dtype ``numpy.uint8``.

        Truncates toward zero, saturates to 0..255 (infinities too), and turns NaN into 0: the same
        values on every backend, for every floating dtype of the framework.
        """
        ...

    def to_numpy(self, x: Tensor) -> npt.NDArray[Any]:
        """Return a host copy of the same shape and dtype; bfloat16, which numpy lacks, becomes
        float32."""
        ...

    def from_numpy(self, a: npt.NDArray[Any], like: Tensor) -> Tensor:
        """Copy a host array to a tensor with the dtype and on the device of ``like``."""
        ...


def joinable(parts: Sequence[Tensor]) -> list[Tensor]:
    """Return the parts as a list, checked, for a backend's :meth:`TensorOps.concat`.

    Frameworks differ here: some skip empty parts, some widen dtypes, some raise at a later line.

    Raises:
        ValueError: the parts cannot be joined along axis 0.
    """
    checked = list(parts)
    if not checked:
        raise ValueError("cannot concat an empty list of tensors")
    first = checked[0]
    shape, dtype = tuple(first.shape), first.dtype
    if not shape or any(
        len(part.shape) != len(shape) or tuple(part.shape[1:]) != shape[1:] or part.dtype != dtype
        for part in checked
    ):
        found = ", ".join(f"{tuple(part.shape)} ({part.dtype})" for part in checked)
        raise ValueError(f"cannot concat tensors of these shapes and dtypes along axis 0: {found}")
    return checked
