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

    Step ``i`` of ``n``, counted from 0, has the schedule's value at its beginning, that at progress
    ``i / n``; the first step too, whatever scale the pipeline was called with. With a scheduler of
    order 2, both halves of a step have the same. A scale means what it means to the pipeline: in
    steps whose scale is not above the one at which its guidance is off (mostly 1.0), only the
    conditional half is computed.

    Where the loop reads its scale at each step, the scale is set there, and a constant schedule
    gives the same bits as a plain call with that scale. Where the loop keeps a copy, what the
    denoiser predicts without the prompt is moved instead, and the loop's own arithmetic gives what
    the other scale would, to rounding.

    The pipeline has to be called with guidance on, with a negative prompt where it takes one for
    that. At the end of a run, it is put back as it was.

    Args:
        schedule: a scale, 0 or more; a function from progress in 0..1 to one; or a table, a list
            of ``(progress, scale)`` tuples by rising progress, the first at 0.0, where each holds
            from its progress on. See also :func:`unicb.callbacks.linear` and
            :func:`unicb.callbacks.cosine`.

    Raises:
        TypeError, ValueError: the schedule is none of these (a function's answers: from ``bind``
            and in the run).
        UnsupportedPipelineError: from ``bind``: the class has no CFG, how its CFG works is not
            known, or its loop combines the two halves in another way from a copy of its scale;
            from the first step: the pipeline was called with guidance off, or sets its scale
            itself.

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
