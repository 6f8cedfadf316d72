"""Read what a scheduler keeps of its model's outputs, and compute x0 from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from unicb.latents._x0 import LazyDenoised, from_noise, from_velocity, itself
from unicb.latents.schedules import LazySchedule, SchedulerFacts, setting
from unicb.ops import Tensor


def kept_type(scheduler: Any, facts: SchedulerFacts) -> str | None:
    """Return what a scheduler keeps: "x0", "epsilon" or "v_prediction"; None where that is
    something else, or nothing."""
    if not facts.kept:
        return None
    if facts.kept_is == "output":
        said = setting(scheduler, "prediction_type")
        return said if said in ("epsilon", "v_prediction") else None
    given = facts.kept_is_x0_if.items()
    if any(setting(scheduler, name) in values for name, values in given):
        return "x0"
    return facts.kept_is


class KeptOutputs:
    """``KeptOutputs`` are what a scheduler keeps of its model's outputs in the steps of one run.

    Args:
        scheduler: the pipeline's.
        name: of its list of them, the last of which is that of the last step.
        kind: what they are, as of :func:`kept_type`.
        as_latents: makes of a tensor as the loop steps it one of the latents' shape; None: they
            have as many numbers in the same order.
    """

    def __init__(
        self,
        scheduler: Any,
        name: str,
        kind: str,
        as_latents: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.kind = kind
        self._scheduler, self._name, self._as_latents = scheduler, name, as_latents

    def last(self) -> Tensor | None:
        """Return what is kept of the last step; None if nothing is."""
        items = getattr(self._scheduler, self._name)
        return items[-1] if items else None

    def denoised(
        self,
        kept: Tensor | None,
        before: Tensor | None,
        latents: Tensor | None,
        levels: LazySchedule,
        step: int,
    ) -> LazyDenoised | None:
        """Return the x0 of a step, to be computed; None where it does not follow.

        Args:
            kept: what is kept of the step.
            before, latents: those that it began with, which only a kept x0 does without, and those
                that it ended with.
            levels: the scheduler's.
            step: its index in these.
        """
        if kept is None or latents is None:
            return None
        shape = tuple(latents.shape)
        fitted = self._fitted(kept, shape)
        if fitted is None:
            return None
        if self.kind == "x0":
            return LazyDenoised((fitted,), itself)
        if before is None or tuple(before.shape) != shape:
            return None
        from_output = from_velocity if self.kind == "v_prediction" else from_noise
        return LazyDenoised((before, fitted), partial(from_output, levels, step), levels)

    def _fitted(self, kept: Tensor, shape: tuple[int, ...]) -> Tensor | None:
        """Return what is kept in the latents' shape; None if it has another number of elements."""
        if self._as_latents is not None:
            kept = self._as_latents(kept)
        if tuple(kept.shape) == (2 * shape[0], *shape[1:]):
            kept = kept[: shape[0]]  # the loop steps each row twice, and callbacks get one of them
        if math.prod(kept.shape) != math.prod(shape):
            return None
        # Some loops step with one more axis.
        return kept if tuple(kept.shape) == shape else kept.reshape(shape)
