"""Compute the denoised latents (x0) by formulas, now or later.

:mod:`unicb.latents.denoised` chooses the formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from unicb.latents.schedules import LazySchedule, Level
from unicb.ops import Tensor


@dataclass(frozen=True)
class LazyDenoised:
    """``LazyDenoised`` holds what is needed to compute the denoised latents (x0) of a step later.

    Attributes:
        tensors: the tensors from which x0 is computed, all of the latents' shape (a mask may have
            size 1 along an axis).
        compute: called with these tensors, or with the same part of each; returns x0, or None if it
            cannot be computed after all. The first call of a run waits for the device to read the
            scheduler's noise levels; it may be made in another thread, while the loop goes on.
        is_linear: True if ``compute`` may also be called with the same linear map of each tensor,
            and then returns that map of x0.
    """

    tensors: tuple[Tensor, ...]
    compute: Callable[..., Tensor | None]
    levels: LazySchedule | None = None
    is_linear: bool = True

    def with_known(self, known: Tensor, mask: Tensor) -> LazyDenoised:
        """Return an object that computes x0 where ``mask`` is 1, and ``known`` where it is 0.

        Args:
            known: clean latents, of the latents' shape.
            mask: numbers in 0..1, of a shape that broadcasts to the latents' shape.
        """
        merged = partial(_merged, self.compute)
        return LazyDenoised((*self.tensors, known, mask), merged, self.levels, False)


def itself(kept: Tensor) -> Tensor:
    return kept


def _merged(compute: Callable[..., Tensor | None], *tensors: Tensor) -> Tensor | None:
    *others, known, mask = tensors
    x0 = compute(*others)
    # In this order of operations, both parts are kept exactly where the mask is 0 or 1.
    return None if x0 is None else x0 * mask + known * (1 - mask)


def from_two(
    levels: LazySchedule, first: int, now: int, half: bool, before: Tensor, after: Tensor
) -> Tensor | None:
    start, end = levels.start(first), levels.end(now - 1, half)
    return None if start is None or end is None else solve(before, after, start, end)


def from_velocity(
    levels: LazySchedule, step: int, before: Tensor, velocity: Tensor
) -> Tensor | None:
    level = levels.start(step)
    return None if level is None else before * level.alpha - velocity * level.sigma


def from_noise(levels: LazySchedule, step: int, before: Tensor, noise: Tensor) -> Tensor | None:
    level = levels.start(step)
    return (before - noise * level.sigma) / level.alpha if level and level.alpha else None


def solve(before: Tensor, after: Tensor, start: Level, end: Level) -> Tensor | None:
    """Compute x0 from the latents before and after a step, and their noise levels.

    Computed from the difference of the two latents, which are alike: in half precision, that loses
    less than the difference of their multiples. None if both levels are the same.
    """
    determinant = start.sigma * end.alpha - end.sigma * start.alpha
    if math.isclose(start.sigma * end.alpha, end.sigma * start.alpha, rel_tol=1e-6):
        return None
    whole = (start.sigma - end.sigma) / determinant
    change = end.sigma / determinant
    if math.isclose(whole, 1):  # Euler with sigmas or flow needs no multiplication, so no rounding
        return after + (after - before) * change
    return after * whole + (after - before) * change
