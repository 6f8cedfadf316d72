"""The intervals that benchmarks/cut_quality.py gives: known values, and how often they hold."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def intervals(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("_intervals")


def test_share_is_wilsons(intervals: Any) -> None:
    # R. G. Newcombe, Statist. Med. 17, 857 (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    known = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (hits, of), bounds in known.items():
        found = intervals.share(hits, of)
        assert found.value == hits / of
        assert (found.lower, found.upper) == pytest.approx(bounds, abs=5e-5)
    assert intervals.share(20, 20).upper == 1


def test_shares_hold_the_truth_in_95_percent(intervals: Any) -> None:
    random = np.random.default_rng(0)
    for truth in (0.5, 0.9, 0.98):
        hits = random.binomial(500, truth, size=4000)
        found = [intervals.share(int(n), 500) for n in hits]
        held = np.mean([one.lower <= truth <= one.upper for one in found])
        assert 0.93 < held < 0.975


def test_paired_differences_hold_the_truth_in_95_percent(intervals: Any) -> None:
    random = np.random.default_rng(1)
    for gain, loss in ((0.01, 0.03), (0.02, 0.02), (0.0, 0.2)):
        counts = random.multinomial(500, (gain, loss, 1 - gain - loss), size=4000)
        found = [intervals.paired_difference(int(up), int(down), 500) for up, down, _ in counts]
        held = np.mean([one.lower <= gain - loss <= one.upper for one in found])
        assert 0.93 < held < 0.985


def test_a_paired_difference_has_its_sign(intervals: Any) -> None:
    worse = intervals.paired_difference(2, 40, 500)
    assert worse.value == pytest.approx(-0.076)
    assert worse.lower < worse.value < worse.upper < 0
    better = intervals.paired_difference(40, 2, 500)
    assert (better.lower, better.upper) == pytest.approx((-worse.upper, -worse.lower))
    same = intervals.paired_difference(0, 0, 98)
    assert same.value == 0
    assert (same.lower, same.upper) == pytest.approx((-0.027718, 0.027718), abs=1e-6)


def test_means(intervals: Any) -> None:
    values = np.random.default_rng(2).normal(5, 2, size=400)
    found = intervals.mean(values)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.lower == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.upper == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert found == intervals.mean(values)
    assert intervals.mean([3.0, 3.0]) == (3, 3, 3)


def test_no_samples_have_no_estimate(intervals: Any) -> None:
    with pytest.raises(ValueError, match="3 of 2"):
        intervals.share(3, 2)
    with pytest.raises(ValueError, match="0 of 0"):
        intervals.share(0, 0)
    with pytest.raises(ValueError, match="6 gained and 5 lost of 10"):
        intervals.paired_difference(6, 5, 10)
    with pytest.raises(ValueError, match="no values"):
        intervals.mean([])
