"""Define a tensor that allows only what the tensor contract allows."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

__all__ = ["StrictTensor"]


def _combining(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], StrictTensor]:
    """Make a method that combines a tensor with another, or with a number."""
    return lambda tensor, other: StrictTensor(operation(tensor.data, _operand(other)))


class StrictTensor:
    """A strict tensor is a numpy array with the tensor contract's operations only: any other
    attribute raises AttributeError."""

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data: npt.NDArray[Any] = np.asarray(data)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def reshape(self, shape: tuple[int, ...]) -> StrictTensor:
        return StrictTensor(self.data.reshape(shape))

    def swapaxes(self, axis1: int, axis2: int) -> StrictTensor:
        return StrictTensor(self.data.swapaxes(axis1, axis2))

    def __getitem__(self, key: Any) -> StrictTensor:
        return StrictTensor(self.data[_basic(key)])

    __add__ = __radd__ = _combining(operator.add)
    __mul__ = __rmul__ = _combining(operator.mul)
    __sub__ = _combining(operator.sub)
    __truediv__ = _combining(operator.truediv)
    __rsub__ = _combining(lambda x, other: other - x)
    __rtruediv__ = _combining(lambda x, other: other / x)

    def __pow__(self, exponent: float) -> StrictTensor:
        with np.errstate(all="ignore"):
            return StrictTensor(self.data ** _number(exponent))


def _operand(value: Any) -> Any:
    return value.data if isinstance(value, StrictTensor) else _number(value)


def _number(value: Any) -> float:
    # numpy's float64 is a float, and would widen the tensor.
    if type(value) not in (int, float):
        raise TypeError(f"tensors combine with tensors and Python numbers, not {type(value)}")
    return cast(float, value)


def _basic(key: Any) -> Any:
    """Return the key, if every framework takes it: MindSpore takes no numpy integers, torch no
    negative steps, and lists and arrays are advanced indexing."""
    for part in key if type(key) is tuple else (key,):
        sliced = isinstance(part, slice)
        numbers = (part.start, part.stop, part.step) if sliced else (part,)
        if part is not ... and any(n is not None and type(n) is not int for n in numbers):
            raise TypeError(f"tensors are indexed by integers, slices, ... and None, not {part!r}")
        if sliced and part.step is not None and part.step < 1:
            raise ValueError(f"slices have positive steps, not {part.step}")
    return key
