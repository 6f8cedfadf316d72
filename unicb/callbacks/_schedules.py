"""Compute values that change with the progress of a run: constants, functions, tables."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Generic, TypeAlias, TypeVar, cast

from unicb.checks import number, share

V = TypeVar("V")

#: A value, a function of progress in 0..1, or a table of (progress, value) tuples.
Schedule: TypeAlias = V | Callable[[float], V] | Sequence[tuple[float, V]]


class Scheduled(Generic[V]):
    """``Scheduled`` is a checked :data:`Schedule`, which returns its value at any progress.

    A table is a list of ``(progress, value)`` tuples, by rising progress, the first at 0.0: each
    value holds from its progress up to the next one's.

    Args:
        name: what the schedule is called in messages.
        schedule: a value, a function, or a table: see :data:`Schedule`.
        check: called with a name for messages and a value; returns the value for :meth:`at`, or
            raises TypeError or ValueError.

    Raises:
        TypeError, ValueError: ``check`` refuses a value; or a table is empty, is not sorted, does
            not start at 0.0, or has an item that is no such tuple with progress in 0..1.
    """

    def __init__(self, name: str, schedule: Schedule[V], check: Callable[[str, Any], V]) -> None:
        self._name, self._check = name, check
        self._function: Callable[[float], V] | None = None
        self._starts: list[float] = [0.0]
        if callable(schedule):
            self._function = schedule
        elif _is_table(schedule):
            table = cast(Sequence[tuple[float, V]], schedule)
            self._starts = _starts(name, table)
            self._values = [check(f"{name} at progress {p:g}", value) for p, value in table]
        else:
            try:
                self._values = [check(name, schedule)]
            except TypeError as error:
                raise TypeError(
                    f"{error}; a schedule is a value, a function of the progress in 0..1, or a "
                    "list of (progress, value) tuples"
                ) from None

    def at(self, progress: float) -> V:
        """Return the value at ``progress`` in 0..1.

        Raises:
            TypeError, ValueError: ``check`` refuses a function's result.
        """
        if self._function is not None:
            answer = self._function(progress)
            return self._check(f"{self._name} at progress {progress:g}", answer)
        return self._values[bisect_right(self._starts, progress) - 1]

    def samples(self) -> tuple[V, ...]:
        """Return all values of a constant or a table; for a function, its values at 0.0 and 1.0.

        Raises:
            TypeError, ValueError: as from :meth:`at`.
        """
        if self._function is not None:
            return self.at(0.0), self.at(1.0)
        return tuple(self._values)


def linear(start: float, end: float) -> Callable[[float], float]:
    """Make a schedule that changes linearly from ``start`` at progress 0.0 to ``end`` at 1.0."""
    first, last = number("start", start), number("end", end)
    return partial(_straight, first, last)


def cosine(start: float, end: float) -> Callable[[float], float]:
    """Make a schedule from ``start`` to ``end`` along half a cosine wave: slow at both ends."""
    first, last = number("start", start), number("end", end)
    return partial(_wave, first, last)


def _straight(first: float, last: float, progress: float) -> float:
    return first + (last - first) * progress


def _wave(first: float, last: float, progress: float) -> float:
    return first + (last - first) * (1 - math.cos(math.pi * progress)) / 2


def _is_table(schedule: Any) -> bool:
    """Return whether the schedule is a table: a list that contains a tuple. Other lists are values,
    such as a scale for each adapter."""
    if not isinstance(schedule, list | tuple):
        return False
    return not schedule or any(isinstance(item, tuple) for item in schedule)


def _starts(name: str, table: Sequence[Any]) -> list[float]:
    if not table:
        raise ValueError(
            f"{name} is an empty table; give it (progress, value) tuples, the first at 0.0"
        )
    for entry in table:
        if not isinstance(entry, tuple) or len(entry) != 2:
            raise TypeError(
                f"{name} is a table of (progress, value) tuples, and {entry!r} in it is none"
            )
    starts = [share(f"the progress in {name}", progress) for progress, _ in table]
    if starts[0] != 0:
        raise ValueError(
            f"{name} must start at progress 0.0, not {starts[0]:g}: "
            "say what holds from the first step on"
        )
    for earlier, later in pairwise(starts):
        if later <= earlier:
            raise ValueError(
                f"{name} must be sorted by rising progress, and {later:g} follows {earlier:g}"
            )
    return starts
