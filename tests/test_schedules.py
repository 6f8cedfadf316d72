"""Schedules over the progress of a run: constants, functions and tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unicb.callbacks._schedules import Scheduled, cosine, linear
from unicb.checks import number


def at(schedule: Any, *progress: float) -> list[float]:
    scheduled = Scheduled("strength", schedule, number)
    return [scheduled.at(p) for p in progress]


def test_constant() -> None:
    assert at(3, 0.0, 0.5, 1.0) == [3.0] * 3
    assert at(np.float32(0.5), 0.2) == [0.5]


def test_table_holds_from_its_progress_on() -> None:
    table = [(0.0, 1), (0.3, 2), (1, 3)]
    assert at(table, 0.0, 0.29, 3 / 10, 0.99, 1.0) == [1, 1, 2, 2, 3]
    assert at(tuple(table), 0.3) == [2]
    assert Scheduled("strength", table, number).samples() == (1, 2, 3)


def test_a_table_is_read_once() -> None:
    table = [(0.0, 1.0)]
    scheduled = Scheduled("strength", table, number)
    table[0] = (0.0, 2.0)
    assert scheduled.at(0.0) == 1.0


def test_function() -> None:
    assert at(lambda p: 2 * p, 0.0, 0.25) == [0.0, 0.5]
    assert Scheduled("strength", lambda p: 2 * p, number).samples() == (0.0, 2.0)


def test_linear_and_cosine() -> None:
    assert at(linear(1, 0), 0.0, 0.25, 1.0) == [1.0, 0.75, 0.0]
    assert at(cosine(0, 2), 0.0, 0.5, 1.0) == pytest.approx([0.0, 1.0, 2.0])
    assert at(cosine(0, 2), 1 / 3) == pytest.approx([0.5])
    for make in (linear, cosine):
        with pytest.raises(TypeError, match="end must be a number, not '0'"):
            make(1, "0")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "error", "says"),
    [
        ([], ValueError, "strength is an empty table"),
        ((), ValueError, "strength is an empty table"),
        ([(0.5, 1.0)], ValueError, r"must start at progress 0\.0, not 0\.5"),
        ([(0.0, 1.0), (0.6, 2.0), (0.4, 3.0)], ValueError, r"sorted .* 0\.4 follows 0\.6"),
        ([(0.0, 1.0), (0.0, 3.0)], ValueError, "sorted"),
        ([(0.0, 1.0), (1.5, 2.0)], ValueError, r"must lie in 0\.\.1, not 1\.5"),
        ([(-0.1, 1.0)], ValueError, r"must lie in 0\.\.1, not -0\.1"),
        ([(0.0, 1.0), (math.nan, 2.0)], ValueError, r"must lie in 0\.\.1, not nan"),
        ([("0", 1.0)], TypeError, "progress in strength must be a number, not '0'"),
        ([(0.0, 1.0), 0.5], TypeError, r"tuples, and 0\.5 in it is none"),
        ([(0.0, 1.0), (0.5,)], TypeError, r"\(0\.5,\) in it is none"),
        ([(0.0, "1")], TypeError, "strength at progress 0 must be a number, not '1'"),
        ([0.5, 1.0], TypeError, r"must be a number, not \[0\.5, 1\.0\]"),
        ((0.5, 1.0), TypeError, r"must be a number, not \(0\.5, 1\.0\)"),
        ("0.5", TypeError, "must be a number"),
        (None, TypeError, "must be a number"),
        (True, TypeError, "must be a number"),
        (math.inf, ValueError, "must be finite"),
    ],
)
def test_what_is_no_schedule(schedule: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Scheduled("strength", schedule, number)


def test_a_function_that_answers_no_number() -> None:
    scheduled = Scheduled("strength", lambda p: None if p > 0.5 else p, number)
    assert scheduled.at(0.5) == 0.5
    with pytest.raises(TypeError, match=r"strength at progress 0\.75 must be a number, not None"):
        scheduled.at(0.75)
    with pytest.raises(TypeError, match="at progress 1 must"):
        scheduled.samples()
