"""Switch classifier-free guidance off for the last part of a run."""

from __future__ import annotations

from unicb.callbacks._cutoff import Cutoff
from unicb.callbacks.guidance_interval import GuidedSteps


class CFGCutoff(GuidedSteps):
    """Compute only the conditional half of classifier-free guidance after some step.

    The cut happens at the end of step ``int(num_timesteps * cutoff_step_ratio)``, or of step
    ``cutoff_step_index``, as in diffusers: that step is the last with guidance, so index 0 and
    ratio 0.0 leave it on for one step. With a scheduler of order 2, which counts its half steps,
    a cut that falls between two halves waits for the second. A cut at the last step changes
    nothing, nor does a cut in a run whose guidance is off from the start. At the end of the run,
    the pipeline's settings are put back.

    Args:
        cutoff_step_ratio: share of the steps after which to cut, in 0..1.
        cutoff_step_index: index of the step after which to cut, from 0. If it is beyond the run's
            last step, there is no cut, and a warning says so.

    Raises:
        ValueError: not exactly one of the two arguments is given, or it is out of range.
        TypeError: the one given is no number.
        UnsupportedPipelineError: from ``bind``: the class has no classifier-free guidance, or unicb
            does not know how it works there. From the first step after the cut, before a picture is
            spoilt: the loop does not work as unicb's facts about its class say.

    Example:
        >>> image = bind(pipe, CFGCutoff(0.4))("a red star")[0]
        >>> image = bind(pipe, CFGCutoff(cutoff_step_index=3))("a red star")[0]
    """

    def __init__(
        self,
        cutoff_step_ratio: float | None = None,
        cutoff_step_index: int | None = None,
    ) -> None:
        super().__init__(0.0, Cutoff("CFGCutoff", cutoff_step_ratio, cutoff_step_index))
