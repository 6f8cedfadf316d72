"""Checks that several callbacks make on their arguments."""

from __future__ import annotations


def step_index(name: str, value: int) -> int:
    """``value``, if it is an index of a step.

    Raises:
        TypeError: it is no int.
        ValueError: it is negative.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} counts steps from 0 and must not be negative, not {value}")
    return value


def step_interval(name: str, value: int) -> int:
    """``value``, if it is a number of steps to count by.

    Raises:
        TypeError: it is no int.
        ValueError: it is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return value
