"""Switch classifier-free guidance off for the last part of a run."""

from __future__ import annotations

import warnings
from typing import Any

from unicb.callback import Callback
from unicb.callbacks._arguments import step_index
from unicb.guidance import check
from unicb.pipelines import PipelineFacts
from unicb.step import Step


class CFGCutoff(Callback):
    """Compute only the conditional half of classifier-free guidance after some step.

    The cut happens at the end of step ``int(num_timesteps * cutoff_step_ratio)``, or of step
    ``cutoff_step_index``, as in diffusers: that step is the last with guidance, so index 0 and
    ratio 0.0 leave it on for one step. With a scheduler of order 2, which counts its half steps,
    a cut that falls between two halves waits for the second. A cut at the last step changes
    nothing, and so does one in a run whose guidance is off from the start. The pipeline is put
    back as it was at the end of the run.

    Args:
        cutoff_step_ratio: share of the steps after which to cut, in 0..1.
        cutoff_step_index: index of the step after which to cut, from 0. Beyond the run's last
            step, it never happens, and a warning says so.

    Raises:
        ValueError: not exactly one of the two is given, or it is out of range.
        TypeError: it is no number.
        UnsupportedPipelineError: from ``bind``: the class has no CFG, or how its CFG works is not
            known; from the first step after the cut, before a picture is spoilt: the loop does
            not do what is known of its class.
    """

    owns = ("guidance",)

    def __init__(
        self,
        cutoff_step_ratio: float | None = None,
        cutoff_step_index: int | None = None,
    ) -> None:
        if (cutoff_step_ratio is None) == (cutoff_step_index is None):
            raise ValueError(
                "CFGCutoff takes exactly one of cutoff_step_ratio and cutoff_step_index, not "
                f"{cutoff_step_ratio!r} and {cutoff_step_index!r}"
            )
        self._ratio = None if cutoff_step_ratio is None else _ratio(cutoff_step_ratio)
        self._index = None
        if cutoff_step_index is not None:
            self._index = step_index("cutoff_step_index", cutoff_step_index)

    def on_bind(self, pipeline: Any, facts: PipelineFacts | None) -> None:
        check(pipeline, facts)

    def on_step_end(self, step: Step) -> None:
        cutoff = self._cutoff(step.num_timesteps)
        if step.index == 0 and self._index is not None and cutoff >= step.num_timesteps:
            warnings.warn(
                f"CFGCutoff(cutoff_step_index={cutoff}) never cuts: the run's last step is "
                f"{step.num_timesteps - 1}",
                stacklevel=2,
            )
        # `>=`: the step at the cutoff may be the first half of a whole one.
        if cutoff <= step.index < step.num_timesteps - 1 and step.is_whole:
            step.cut_guidance()

    def _cutoff(self, num_timesteps: int) -> int:
        if self._index is not None:
            return self._index
        assert self._ratio is not None
        return int(num_timesteps * self._ratio)


def _ratio(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"cutoff_step_ratio must be a number in 0..1, not {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(
            f"cutoff_step_ratio must lie in 0..1, not {value!r}; "
            "to cut after a given step, pass cutoff_step_index"
        )
    return float(value)
