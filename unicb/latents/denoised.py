"""Compute x0, what the model takes the finished latents to be, from the latents between its steps.

A sample at a noise level is ``x = alpha * x0 + sigma * noise``. A sampler's step keeps the model's
idea of x0 and of the noise, and goes to the next level:

    x_i     = alpha_i     * x0 + sigma_i     * noise
    x_{i+1} = alpha_{i+1} * x0 + sigma_{i+1} * noise

Two latents that follow each other are two equations for x0. They hold exactly for
samplers of order 1 without fresh noise: Euler in any parametrisation (arXiv 2206.00364, eq. 5 and
algorithm 1 without churn), rectified flow (arXiv 2209.03003), DDIM with eta = 0 (arXiv 2010.02502,
eq. 12). Schedulers of order 2 (Heun, KDPM2) begin every step with such a one. Multistep solvers
(arXiv 2211.01095, 2302.04867) mix the model's outputs of several steps, so that x0 follows
from two latents only nearly; but these solvers keep the last output, as x0 or as noise.

Which scheduler is which: ``schedulers.toml``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from unicb.latents._kept import KeptOutputs, kept_type
from unicb.latents._x0 import LazyDenoised, from_two
from unicb.latents.schedules import (
    LazySchedule,
    SchedulerFacts,
    attributes_needed,
    facts_for_scheduler,
    schedule_source,
    setting,
)
from unicb.ops import Tensor, TensorOps

__all__ = ["DenoisedEstimate", "Kind", "LazyDenoised"]

Kind: TypeAlias = Literal["exact", "estimate"]

NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})


class DenoisedEstimate:
    """``DenoisedEstimate`` computes the x0 of each step of one run. Make a new one for every run.

    In a callback, ``step.denoised()`` is this, with what is known of the pipeline's loop.

    It never changes latents, and keeps one tensor: the latents of the last step end, or
    after half a step the two that the estimate of the whole one follows from.

    Attributes:
        kind: as of :meth:`kind_of`.
        is_from_kept: whether x0 is what the model said, all over. From two latents, it has the
            known region of an inpainted picture, which the loop put into them in between.
        needs_notes: whether it takes more than the latents of two step ends: then every step is to
            be noted with :meth:`note`, and :meth:`between` is not for it.

    Args:
        scheduler: the pipeline's, one that :meth:`kind_of` does not say None to.
        ops: the tensor operations of the pipeline's framework.
        first_timestep: the timestep of the run's first step, as a number or as the tensor that it
            comes in, and
        num_timesteps: how many there are. Schedulers that count their steps need neither. DDIM
            and PNDM do not count: without these, a run is taken to start with the schedule, and
            the estimates of one that does not (image to image with a strength below 1) are wrong.
        step_arguments: what the loop hands to the scheduler's ``step`` besides, such as DDIM's
            ``eta``.
        as_latents: makes of a tensor as the loop steps it one of the latents' shape, in loops that
            step them in another. Left out: they have as many numbers in the same order.

    Raises:
        ValueError: x0 cannot be computed on this scheduler.
    """

    def __init__(
        self,
        scheduler: Any,
        ops: TensorOps,
        *,
        first_timestep: Any = None,
        num_timesteps: int | None = None,
        step_arguments: Mapping[str, Any] = NO_ARGUMENTS,
        as_latents: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        facts, kind = facts_for_scheduler(scheduler), self.kind_of(scheduler, step_arguments)
        if facts is None or kind is None:
            raise ValueError(
                f"the denoised latents of {type(scheduler).__name__} cannot be computed"
            )
        self.kind: Kind = kind
        self._scheduler, self._ops, self._facts = scheduler, ops, facts
        self._first_timestep, self._num_timesteps = first_timestep, num_timesteps
        kept = kept_type(scheduler, facts)
        self._kept = None if kept is None else KeptOutputs(scheduler, facts.kept, kept, as_latents)
        # Asked once: for an attribute that is not there, the frameworks' schedulers take long.
        self._has_halves = (
            hasattr(scheduler, "state_in_first_order") and getattr(scheduler, "order", 2) > 1
        )
        self._counts = hasattr(scheduler, "step_index")
        self.is_from_kept = kept is not None
        self.needs_notes = self._has_halves or kept in ("epsilon", "v_prediction")
        self._levels: LazySchedule  # from the first schedule on that is seen
        self._last = _Noted()

    @classmethod
    def kind_of(
        cls, scheduler: Any, step_arguments: Mapping[str, Any] = NO_ARGUMENTS
    ) -> Kind | None:
        """Tell what :meth:`step_end` can compute on a scheduler, as it is configured.

        "exact": x0 to rounding, if no callback changes the latents in between. "estimate": the
        same formulas where they hold nearly. None: x0 cannot be computed, or not better than by
        the noisy latents themselves. Without ``step_arguments``, DDIM's ``eta`` is taken to be 0.
        """
        return _kind_of(scheduler, facts_for_scheduler(scheduler), step_arguments)

    def see_schedule(self, index: int) -> None:
        """Look whether there is a new schedule, as of this step (-1: before the first): there is
        no x0 :meth:`between` two schedules."""
        if schedule_source(self._scheduler, self._facts) is not self._last.source:
            self._begin_schedule()
            self._last.seen_at = index

    def between(self, before: Tensor | None, latents: Tensor, index: int) -> LazyDenoised | None:
        """Return x0 of the step that has just ended, to be computed; None where there is none.

        Args:
            before, latents: those that it began with (None if they are not known) and ended with.
            index: of the step, from 0, among those of this pass over the timesteps.
        """
        self.see_schedule(index)
        if index == self._last.seen_at:
            before = None  # between two schedules, the loop may have done more than a step
        now = int(self._scheduler.step_index or 0) if self._counts else index + 1
        if now <= 0:
            return None  # the loop steps a copy of the pipeline's scheduler
        if self._kept is not None:
            return self._kept.denoised(self._kept.last(), None, latents, self._levels, now - 1)
        return self._from_two(before, latents, now - 1, now, False)

    def step_end(self, latents: Tensor) -> Tensor | None:
        """Return x0 as of the step that ends, given its latents; to be called at the end of every
        step.

        Args:
            latents: of any shape and floating dtype, as the loop hands them to a callback.

        Returns:
            x0, on the device, of the same shape and dtype; not to be changed in place, for it may
            be the scheduler's own (and of the dtype that it keeps: mindone's SASolver and UniPC
            may keep float32 of float16 latents). None where there is none: at the first step
            (unless the scheduler keeps x0), after half a step of a scheduler of order 2, and
            after a last step that leaves the noise level as it was.
        """
        self.note(latents)
        lazy = None if self._last.is_half else self.lazy()
        self.goes_on_with(latents)
        return None if lazy is None else lazy.compute(*lazy.tensors)

    def note(self, latents: Tensor) -> None:
        """Note that a step has ended, with these latents, before any callback changes them.
        Computes nothing, and waits for nothing."""
        if schedule_source(self._scheduler, self._facts) is not self._last.source:
            self._begin_schedule()
        last = self._last
        half = last.is_half = self._has_halves and _is_first_half(self._scheduler)
        last.first = last.now
        if self._counts:
            # None where the loop steps a copy of the pipeline's scheduler.
            last.now = int(self._scheduler.step_index or 0)
        else:
            last.count += not half
            last.now = last.count + half
        last.before, last.latents = last.latents, latents
        if half:
            last.halfway = None
        if self._kept is not None:
            kept = self._kept.last()
            # PNDM keeps no output of the second, third and fourth of its Runge-Kutta evaluations.
            # The list still holds the item before the last when a new one comes: no id comes twice.
            last.kept = None if id(kept) == last.kept_id else kept
            last.kept_id = id(kept)

    def goes_on_with(self, latents: Tensor | None) -> None:
        """Note that the step's callbacks have returned. From here on, :meth:`lazy` has nothing of
        it.

        Args:
            latents: with which the loop begins the next step, and None if that is not known.
        """
        last = self._last
        last.halfway = self._from_noted() if last.is_half else None
        last.kept = last.before = None
        # What follows from a half step's start is not computed from its end again.
        is_kept = self._kept is not None and self._kept.kind == "x0"
        last.latents = None if last.is_half or is_kept else latents

    def lazy(self) -> LazyDenoised | None:
        """Return x0 of the step that was noted last, to be computed; None where there is none.

        After half a step there is one already, the one of the whole step.
        """
        last = self._last
        if last.now <= 0:
            return None  # the loop steps a copy of the pipeline's scheduler
        if self._kept is None:
            return last.halfway or self._from_noted()
        # An output that is not of the step right after the one before tells nothing.
        before = last.before if last.first == last.now - 1 else None
        return self._kept.denoised(last.kept, before, last.latents, self._levels, last.now - 1)

    def _from_noted(self) -> LazyDenoised | None:
        last = self._last
        return self._from_two(last.before, last.latents, last.first, last.now, last.is_half)

    def _from_two(
        self, before: Tensor | None, after: Tensor | None, first: int, now: int, half: bool
    ) -> LazyDenoised | None:
        if before is None or after is None or tuple(before.shape) != tuple(after.shape):
            return None
        compute = partial(from_two, self._levels, first, now, half)
        return LazyDenoised((before, after), compute, self._levels)

    def _begin_schedule(self) -> None:
        source = schedule_source(self._scheduler, self._facts)
        self._last = _Noted(source, kept_id=self._last.kept_id)
        self._levels = LazySchedule(
            self._scheduler, self._facts, self._ops, self._first_timestep, self._num_timesteps
        )


@dataclass(slots=True)
class _Noted:
    """``_Noted`` holds what was noted at the end of the last step.

    Attributes:
        source: of the schedule; see :func:`schedule_source`.
        count: of whole steps, where the scheduler does not count.
        now: index of the step that comes next; of the half step where the schedule lists these.
        first: the same, at the end of the step before.
        is_half: whether it was the first half of a step.
        before: the latents that it began with.
        latents: those that it ended with.
        halfway: x0, as it follows from the first half.
        kept: what the scheduler keeps of it; None if that is the same as before.
        kept_id: of what the scheduler kept last.
        seen_at: index of the step at which the schedule was first seen; None where each is noted.
    """

    source: Any = None
    count: int = 0
    now: int = 0
    first: int = 0
    is_half: bool = False
    before: Tensor | None = None
    latents: Tensor | None = None
    halfway: LazyDenoised | None = None
    kept: Tensor | None = None
    kept_id: int | None = None
    seen_at: int | None = None


def _kind_of(
    scheduler: Any, facts: SchedulerFacts | None, step_arguments: Mapping[str, Any]
) -> Kind | None:
    if facts is None or facts.noisy:
        return None
    if any(setting(scheduler, n) for n in facts.noisy_if):
        return None
    if any(_is_given(step_arguments.get(n)) for n in facts.noisy_if_passed):
        return None
    if not all(hasattr(scheduler, name) for name in attributes_needed(facts)):
        return None
    if facts.kept:
        return None if kept_type(scheduler, facts) is None else "exact"
    unclear = any(setting(scheduler, name) for name in facts.estimate_if)
    return "estimate" if unclear else "exact"


def _is_first_half(scheduler: Any) -> bool:
    """Return whether the step that ends is the first half of one."""
    if scheduler.state_in_first_order:
        return False
    # They end with a step that has no second half, and wait for one ever after.
    count = getattr(scheduler, "step_index", None)
    return count is None or count < len(scheduler.timesteps)


def _is_given(value: Any) -> bool:
    """Return whether an argument of a scheduler's step is there, and not 0."""
    return value is not None and not (isinstance(value, int | float) and value == 0)
