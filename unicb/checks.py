"""Check arguments: each function returns the checked value, or raises an error that says what is
wrong.

Every message names the argument, the value given, and what is allowed. numpy's ints and floats are
accepted, and returned as Python's. True and False are no numbers.

Some functions take words for the message: the ``kind`` of value, what it ``must`` be, and a final
``hint``.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any, TypeGuard, TypeVar

__all__ = [
    "are_names",
    "flag",
    "names",
    "number",
    "number_above_0",
    "number_from_0",
    "number_within",
    "one_of",
    "seconds",
    "share",
    "shown",
    "step_index",
    "whole_number",
]

T = TypeVar("T")


def shown(value: object) -> str:
    """Return a value as messages show it: its shortened ``repr``; for a tensor, also inside lists
    and dicts, only shape and dtype, since it may be large and on a device."""
    return _SHOWN.repr(value)


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring, self.maxother, self.maxlong, self.maxlevel = 120, 200, 500, 3

    def repr_instance(self, x: Any, level: int) -> str:
        shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
        is_scalar = shape == () and type(x).__module__ == "numpy"
        if not (isinstance(x, type) or shape is None or dtype is None or is_scalar):
            return f"a {type(x).__name__} of shape {tuple(shape)} and dtype {dtype}"
        text = super().repr_instance(x, level)
        # An object that contains tensors.
        return f"a {type(x).__name__}" if "tensor(" in text.lower() else text


_SHOWN = _Shown()


def whole_number(name: str, value: object, least: int = 1) -> int:
    """Return ``value``, if it is an int of at least ``least``.

    Raises:
        TypeError: ``value`` is no int.
        ValueError: ``value`` is less than ``least``.
    """
    found = _integer(name, value)
    if found < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return found


def step_index(name: str, value: object) -> int:
    """Return ``value``, if it is the index of a step: an int from 0.

    Raises:
        TypeError: ``value`` is no int.
        ValueError: ``value`` is negative.
    """
    found = _integer(name, value)
    if found < 0:
        raise ValueError(f"{name} counts steps from 0 and must not be negative, not {value}")
    return found


def number(name: str, value: object, kind: str = "a number") -> float:
    """Return ``value`` as a float, if it is a finite real number.

    Args:
        name: the argument's name.
        value: the value given.
        kind: what the value has to be, in words for the message.

    Raises:
        TypeError: ``value`` is no number.
        ValueError: ``value`` is infinite or NaN.
    """
    found = _real(name, value, kind)
    if not math.isfinite(found):
        raise ValueError(f"{name} must be finite, not {shown(value)}")
    return found


def number_within(name: str, value: object, low: float, high: float) -> float:
    """Return ``value`` as a float, if it is in ``low..high``.

    Raises:
        TypeError: ``value`` is no number.
        ValueError: ``value`` is out of range, infinite or NaN.
    """
    found = _real(name, value)
    if not (low <= found <= high and math.isfinite(found)):
        raise ValueError(f"{name} must be in {low:g}..{high:g}, not {value}")
    return found


def number_from_0(name: str, value: object, must: str = "must be 0 or more") -> float:
    """Return ``value`` as a float, if it is finite and not negative.

    Raises:
        TypeError: ``value`` is no number.
        ValueError: ``value`` is negative, infinite or NaN.
    """
    found = number(name, value)
    if found < 0:
        raise ValueError(f"{name} {must}, not {shown(value)}")
    return found


def number_above_0(
    name: str,
    value: object,
    must: str = "must be above 0 and finite",
    hint: str = "",
    kind: str = "a number",
) -> float:
    """Return ``value`` as a float, if it is finite and above 0.

    Raises:
        TypeError: ``value`` is no number.
        ValueError: ``value`` is 0 or less, infinite or NaN.
    """
    found = _real(name, value, kind)
    if not 0 < found < math.inf:
        raise ValueError(f"{name} {must}, not {shown(value)}{hint}")
    return found


def seconds(name: str, value: object) -> float:
    """Return ``value`` as a float, if it is a time in seconds, above 0.

    Raises:
        TypeError: ``value`` is no number.
        ValueError: ``value`` is 0 or less, infinite or NaN.
    """
    must = "must be above 0 seconds and finite"
    return number_above_0(name, value, must, kind="a number of seconds")


def share(
    name: str,
    value: object,
    must: str = "must lie in 0..1",
    hint: str = "",
    kind: str = "a number",
) -> float:
    """Return ``value`` as a float, if it is in 0..1: a progress, or a share of the steps.

    Raises:
        TypeError: ``value`` is no number.
        ValueError: ``value`` is out of range, infinite or NaN.
    """
    found = _real(name, value, kind)
    if not 0 <= found <= 1:
        raise ValueError(f"{name} {must}, not {shown(value)}{hint}")
    return found


def one_of(name: str, value: T, words: Collection[str], *besides: str) -> T:
    """Return ``value``, if it is one of the words.

    Args:
        name: the argument's name.
        value: the value given.
        words: the allowed words.
        besides: what else is allowed, for the message, such as ``"a function"``.

    Raises:
        ValueError: ``value`` is none of the words.
    """
    if not (isinstance(value, str) and value in words):
        *first, last = (*map(repr, words), *besides)
        allowed = f"{', '.join(first)} or {last}" if first else last
        raise ValueError(f"{name} must be {allowed}, not {shown(value)}")
    return value


def names(name: str, value: object) -> tuple[str, ...]:
    """Return ``value`` as a tuple, if it is a list or another collection of names.

    Raises:
        TypeError: ``value`` is a single name, or no collection of names.
    """
    if isinstance(value, str):
        raise TypeError(f"{name} takes names, not one: write ({value!r},)")
    if not are_names(value):
        raise TypeError(f"{name} must be a list of names, not {shown(value)}")
    return tuple(value)


def are_names(value: object) -> TypeGuard[Collection[str]]:
    """Return whether ``value`` is a list or another collection of names. A single
    name is not."""
    if isinstance(value, str) or not isinstance(value, Collection):
        return False
    return all(isinstance(one, str) for one in value)


def flag(name: str, value: object) -> bool:
    """Return ``value``, if it is True or False.

    Raises:
        TypeError: ``value`` is anything else, also 0 or 1.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {shown(value)}")
    return value


def _integer(name: str, value: object) -> int:
    # numpy's integers are among Python's numbers.Integral, as bool is; numpy's bool is not.
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an int, not {shown(value)}")
    return int(value)


def _real(name: str, value: object, kind: str = "a number") -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {kind}, not {shown(value)}")
    try:
        return float(value)
    except OverflowError:  # an int or fraction beyond the largest float: no check accepts that
        return math.inf
