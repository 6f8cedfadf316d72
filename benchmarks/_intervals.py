"""Estimates with intervals that hold the true value in 95 % of all samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: Quantile of the normal distribution for two-sided intervals of 95 %.
Z = 1.959963984540054
RESAMPLES = 10_000


class Estimate(NamedTuple):
    """A value, and the bounds of its interval of 95 %."""

    value: float
    lower: float
    upper: float

    def times(self, factor: float) -> Estimate:
        """Return the estimate in another unit; ``factor`` is not negative."""
        return Estimate(*(factor * number for number in self))


def share(hits: int, of: int) -> Estimate:
    """Estimate a share, with Wilson's interval (J. Am. Stat. Assoc. 22, 209, 1927).

    Raises:
        ValueError: ``hits`` is not in 0..of, or ``of`` is 0.
    """
    if not 0 <= hits <= of or of == 0:
        raise ValueError(f"{hits} of {of} is no share")
    p, square = hits / of, Z * Z / of
    middle = (p + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(p * (1 - p) / of + square / (4 * of))
    # The bounds are exact at the ends, where rounding may miss them.
    return Estimate(p, 0.0 if hits == 0 else middle - half, 1.0 if hits == of else middle + half)


def paired_difference(gained: int, lost: int, of: int) -> Estimate:
    """Estimate the difference of two shares of the same sample, with the adjusted Wald interval for
    pairs (D. G. Bonett, R. M. Price, J. Educ. Behav. Stat. 37, 479, 2012).

    Args:
        gained: how many are hits in the second only.
        lost: how many are hits in the first only.
        of: the size of the sample.

    Raises:
        ValueError: a number is negative, or the two are more than the sample.
    """
    if min(gained, lost) < 0 or gained + lost > of or of == 0:
        raise ValueError(f"{gained} gained and {lost} lost of {of} is no sample of pairs")
    up, down = (gained + 1) / (of + 2), (lost + 1) / (of + 2)
    half = Z * math.sqrt((up + down - (up - down) ** 2) / (of + 2))
    middle = up - down
    return Estimate((gained - lost) / of, max(-1.0, middle - half), min(1.0, middle + half))


def mean(values: Sequence[float]) -> Estimate:
    """Estimate the mean, with the percentile bootstrap's interval (10000 resamples of a fixed
    seed).

    Raises:
        ValueError: there are no values.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.size == 0:
        raise ValueError("there is no mean of no values")
    random = np.random.default_rng(0)
    means = [found[random.integers(found.size, size=found.size)].mean() for _ in range(RESAMPLES)]
    lower, upper = np.percentile(means, [2.5, 97.5])
    return Estimate(float(found.mean()), float(lower), float(upper))
