"""Compute the denoised latents (x0) by formulas, now or later.

Where they come from: :mod:`unicb.latents.denoised`.
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
    """``LazyDenoised`` stands for the denoised latents (x0) of a step, not computed yet.

    Attributes:
        tensors: what it follows from, all of the latents' shape (a mask may have 1 for an axis).
        compute: x0 from these, or from one and the same part of each. None where there is none
            after all. The first call of a run waits for the device, to read the scheduler's
            noise levels; it may be made in another thread, and while the loop goes on.
        is_linear: whether ``compute`` may be given the same linear map of each tensor, too, and
            returns that map of x0.
    """

    tensors: tuple[Tensor, ...]
    compute: Callable[..., Tensor | None]
    levels: LazySchedule | None = None
    is_linear: bool = True

    def with_known(self, known: Tensor, mask: Tensor) -> LazyDenoised:
        """Have x0 where ``mask`` is 1, and ``known`` where it is 0.

        Args:
            known: clean latents, of the latents' shape.
            mask: 0 to 1, of a shape that broadcasts to it.
        """
        merged = partial(_merged, self.compute)
        return LazyDenoised((*self.tensors, known, mask), merged, self.levels, False)


def itself(kept: Tensor) -> Tensor:
    return kept


def _merged(compute: Callable[..., Tensor | None], *tensors: Tensor) -> Tensor | None:
    *others, known, mask = tensors
    x0 = compute(*others)
    # With x0 times the mask first, both parts keep their bits where the mask is 0 or 1.
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

    Written with the difference of the two, which are alike: in half precision, that rounds away
    less than the difference of their multiples would. None if both levels are the same.
    """
    determinant = start.sigma * end.alpha - end.sigma * start.alpha
    if math.isclose(start.sigma * end.alpha, end.sigma * start.alpha, rel_tol=1e-6):
        return None
    whole = (start.sigma - end.sigma) / determinant
    change = end.sigma / determinant
    if math.isclose(whole, 1):  # Euler by sigmas or by flow: nothing to round
        return after + (after - before) * change
    return after * whole + (after - before) * change
