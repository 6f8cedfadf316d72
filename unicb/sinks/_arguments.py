"""Checks that several sinks make on their arguments."""

from __future__ import annotations

import math


def whole_number(name: str, value: object, least: int = 1) -> int:
    """``value``, if it is an int of at least ``least``.

    Raises:
        TypeError: it is no int.
        ValueError: it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return value


def number_within(name: str, value: object, low: float, high: float) -> float:
    """``value`` as a float, if it is in ``low..high``.

    Raises:
        TypeError: it is neither int nor float.
        ValueError: it is out of range, infinite or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not (low <= value <= high) or math.isinf(value):
        raise ValueError(f"{name} must be in {low:g}..{high:g}, not {value}")
    return float(value)
