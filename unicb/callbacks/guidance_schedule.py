"""Change the guidance scale with the progress of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unicb.callback import Callback
from unicb.callbacks._schedules import Schedule, Scheduled
from unicb.checks import number_from_0
from unicb.step import Step

if TYPE_CHECKING:
    from unicb import Target


class GuidanceSchedule(Callback):
    """Let the scale of classifier-free guidance follow a schedule.

    Step ``i`` of ``n``, counted from 0, has the schedule's value at progress ``i / n``; the first
    step too, whatever scale the pipeline was called with. With a scheduler of order 2, both halves
    of a step have the same scale. Scales are in the pipeline's own convention: in steps whose scale
    is one at which the pipeline's guidance is off (mostly 1.0 and below), only the conditional half
    is computed.

    If the loop reads the pipeline's scale at each step, that scale is set, and a constant schedule
    gives the same bits as a plain call with it. If the loop keeps a copy, the unconditional
    prediction is changed instead, so that the loop's own arithmetic gives the result of the new
    scale, up to rounding.

    Call the pipeline with guidance on, also with a negative prompt if its guidance needs one. At
    the end of a run, the pipeline's settings are put back.

    Args:
        schedule: a scale, 0 or more; a function that takes the progress in 0..1 and returns a
            scale; or a table: a list of ``(progress, scale)`` tuples by rising progress, the first
            at 0.0, where each scale holds from its progress on. See also
            :func:`unicb.callbacks.linear` and :func:`unicb.callbacks.cosine`.

    Raises:
        TypeError, ValueError: the schedule is none of these (a function's results are checked in
            ``bind`` and in the run).
        UnsupportedPipelineError: from ``bind``: the class has no classifier-free guidance, unicb
            does not know how it works there, or the loop keeps a copy of its scale and combines the
            two halves in another way. From the first step: the pipeline was called with guidance
            off, or sets its scale itself.

    Example:
        >>> from unicb.callbacks import linear
        >>> image = bind(pipe, GuidanceSchedule(linear(9.0, 4.0)))("a red star")[0]
        >>> image = bind(pipe, GuidanceSchedule([(0.0, 9.0), (0.5, 4.0)]))("a red star")[0]
    """

    owns = ("guidance",)

    def __init__(self, schedule: Schedule[float]) -> None:
        self._schedule: Scheduled[float] = Scheduled("GuidanceSchedule", schedule, number_from_0)

    def on_bind(self, target: Target) -> None:
        found = target.guidance.check_scale()
        if min(self._schedule.samples()) <= found.guided_above:
            target.guidance.check_cut()

    def before_first_step(self, step: Step) -> None:
        step.set_guidance(self._schedule.at(0.0))

    def on_step_end(self, step: Step) -> None:
        if step.is_whole and step.index + 1 < step.num_timesteps:
            step.set_guidance(self._schedule.at(step.progress))
