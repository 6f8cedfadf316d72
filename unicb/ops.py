"""The tensor contract: all that a callback may do to a tensor, on every framework.

On a tensor itself: ``.shape``, ``.dtype``, ``.reshape``, ``.swapaxes``, basic indexing and slicing
(with positive steps), and ``+ - * /`` with tensors and Python scalars. Everything else is one of
six operations: four verbs (:meth:`~TensorOps.chunk`, :meth:`~TensorOps.matmul`,
:meth:`~TensorOps.clamp`, :meth:`~TensorOps.to_uint8`) and two doors between host and device
(:meth:`~TensorOps.to_numpy`, :meth:`~TensorOps.from_numpy`).
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

#: A tensor of whichever framework the pipeline comes from. Its type is known only at run time.
Tensor: TypeAlias = Any


class TensorOps(Protocol):
    """Six operations that a backend supplies for its framework's tensors.

    No verb changes its argument. Every verb but :meth:`to_uint8` keeps dtype and device. Only
    :meth:`to_uint8` and :meth:`to_numpy` wait for the device.
    """

    def chunk(self, x: Tensor, n: int) -> tuple[Tensor, ...]:
        """Split ``x`` along axis 0 into exactly ``n`` equal parts.

        Raises:
            ValueError: ``n`` does not divide ``x.shape[0]``, or is not positive; names the shape.
        """
        ...

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """Matrix product with numpy's rules: ``(…, i, k) @ (…, k, j) -> (…, i, j)``, batch
        dimensions broadcast.

        dtype and device are those of ``a``, which ``b`` shares. Where the device has no kernel
        for a half-precision dtype, the product is computed in float32 and rounded once.
        """
        ...

    def clamp(self, x: Tensor, low: float, high: float) -> Tensor:
        """Limit every element to ``[low, high]``. NaN stays NaN."""
        ...

    def to_uint8(self, x: Tensor) -> npt.NDArray[np.uint8]:
        """Host array of the same shape, dtype ``numpy.uint8``.

        Truncates toward zero, saturates to 0..255 (infinities too), and turns NaN into 0: the
        same bits on every backend, for every floating dtype that the framework has.
        """
        ...

    def to_numpy(self, x: Tensor) -> npt.NDArray[Any]:
        """Host copy of the same shape and dtype; bfloat16, which numpy lacks, becomes float32."""
        ...

    def from_numpy(self, a: npt.NDArray[Any], like: Tensor) -> Tensor:
        """Copy of a host array as a tensor with the dtype and on the device of ``like``."""
        ...
