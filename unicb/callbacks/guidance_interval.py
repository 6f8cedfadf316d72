"""Limit classifier-free guidance to an interval of a run."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from unicb.callback import Callback
from unicb.callbacks._cutoff import Cutoff
from unicb.checks import share
from unicb.step import Step

if TYPE_CHECKING:
    from unicb import Target


class GuidedSteps(Callback):
    """Compute only the conditional half of guidance before one step, and after another.

    Args:
        start: share of the steps before the first guided one, in 0..1.
        stop: the last guided step.
    """

    owns = ("guidance",)

    def __init__(self, start: float, stop: Cutoff) -> None:
        self._start, self._stop = start, stop

    def on_bind(self, target: Target) -> None:
        target.guidance.check_cut()

    def on_step_end(self, step: Step) -> None:
        if self._stop.is_over(step):
            step.cut_guidance()
        elif self._start > 0 and self.begins_after(step):
            step.restore_guidance()

    def begins_after(self, step: Step) -> bool:
        """Return whether the step after ``step`` is the first guided step or a later one. With a
        scheduler of order 2, the first guided step is the whole step that contains the half step
        ``int(num_timesteps * start)``."""
        first = int(step.num_timesteps * self._start)
        return step.is_whole and step.index + half_steps(step) >= first


def half_steps(step: Step) -> int:
    """Return how many half steps a whole step has; 1 if the scheduler has no half steps."""
    scheduler = getattr(step.pipeline, "scheduler", None)
    halves = hasattr(scheduler, "state_in_first_order")
    return int(getattr(scheduler, "order", 1)) if halves else 1


class GuidanceInterval(GuidedSteps):
    """Guide only in an interval of the steps, and save half of the work outside it.

    As in Kynkäänniemi et al., "Applying Guidance in a Limited Interval Improves Sample and
    Distribution Quality in Diffusion Models" (2024, arXiv:2404.07724): guidance is harmful at high
    noise levels, hardly needed at low ones, and does its good in between.

    The guided steps are those from ``int(num_timesteps * start)`` to ``int(num_timesteps * stop)``,
    counted from 0, both included; so ``GuidanceInterval(0, stop)`` is ``CFGCutoff(stop)``. In all
    other steps only the conditional half is computed. With a scheduler of order 2, which counts its
    half steps, a whole step is guided if one of its halves is in the interval.

    Call the pipeline with guidance on (also if ``start`` is above 0): with guidance off, nothing
    changes, and a warning says so. At the end of a run, the pipeline's settings are put back.

    Args:
        start: share of the steps before the first guided one, in 0..1.
        stop: share of the steps before the last guided one, in 0..1; 1.0: guidance stays on to the
            end.

    Raises:
        ValueError: ``start`` or ``stop`` is outside of 0..1, or ``start`` is not below ``stop``.
        TypeError: one of them is no number.
        UnsupportedPipelineError: from ``bind``: the class has no classifier-free guidance, or unicb
            does not know how it works there. From the first step without guidance, before a picture
            is spoilt: the loop does not work as unicb's facts about its class say.

    Example:
        >>> image = bind(pipe, GuidanceInterval(0.2, 0.6))("a red star")[0]
    """

    def __init__(self, start: float, stop: float) -> None:
        first, last = _share("start", start), _share("stop", stop)
        if first >= last:
            raise ValueError(
                f"start must be below stop, and {start!r} is not below {stop!r}: guidance is on "
                "from start to stop"
            )
        super().__init__(first, Cutoff("GuidanceInterval", last, None))

    def before_first_step(self, step: Step) -> None:
        if step.guidance_is_off:
            message = (
                f"GuidanceInterval changes nothing in this run: {type(step.pipeline).__name__} was "
                "called with guidance off"
            )
            step.run.warned(message)
            warnings.warn(message, stacklevel=2)
        elif not self.begins_after(step):
            step.cut_guidance()


def _share(name: str, value: float) -> float:
    must = "is a share of the steps and must lie in 0..1"
    return share(name, value, must, "; step i of n is at i / n")
