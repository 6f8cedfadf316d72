"""Change the scale of IP-Adapters during a run, and put it back afterwards."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unicb.callback import Callback
from unicb.callbacks._cutoff import Cutoff
from unicb.callbacks._ip_scales import Adapters, HeldScales, Scale, checked_scale
from unicb.callbacks._schedules import Schedule, Scheduled
from unicb.errors import UnsupportedPipelineError
from unicb.step import Step

if TYPE_CHECKING:
    from unicb import Run, Target


@dataclass
class _Kept:
    """Hold the adapters' scales that a run has changed; None until the first change."""

    held: HeldScales | None = None


class _OnAdapters(Callback):
    """Set scales of IP-Adapters; one object may serve several runs at a time."""

    owns = ("ip_adapter_scale",)

    def on_bind(self, target: Target) -> None:
        for processor in self._adapters(target.pipeline).processors.values():
            target.check_changeable(processor)

    def _adapters(self, pipeline: Any) -> Adapters:
        return Adapters(type(self).__name__, pipeline)

    def _held(self, step: Step) -> HeldScales:
        kept = step.run.state(self, _Kept)
        if kept.held is None:
            kept.held = HeldScales(self._adapters(step.pipeline), step.run)
        return kept.held


class IPAdapterScale(_OnAdapters):
    """Let the scale of a pipeline's IP-Adapters follow a schedule.

    The first step has the scale that the pipeline was called with, since nothing can be set before
    that step ends: call ``pipe.set_ip_adapter_scale`` with the schedule's first value; if they
    differ, a warning says so. Each later step ``i`` of ``n``, counted from 0, has the schedule's
    value at progress ``i / n``. With a scheduler of order 2, both halves of a step have the same
    scale. At the end of the run, also after an error, the scales from before are put back.

    A scale is what ``set_ip_adapter_scale`` takes: a number, for all adapters; a list with a number
    for each adapter; for a UNet a dict by blocks, such as ``{"up": {"block_0": [0.0, 1.0, 0.0]}}``,
    where blocks that are not named have 0; for FLUX and related pipelines a list with a number for
    each layer. At 0, the adapter's computation is saved as well (except for FLUX and related
    pipelines).

    Args:
        schedule: a scale; a function that takes the progress in 0..1 and returns a scale; or a
            table: a list of ``(progress, scale)`` tuples by rising progress, the first at 0.0,
            where each scale holds from its progress on. See also :func:`linear` and :func:`cosine`.

    Raises:
        TypeError, ValueError: the schedule is none of these (a function's results are checked in
            ``bind`` and in the run). From ``bind``: a scale names unknown blocks, or does not have
            the pipeline's number of adapters, blocks or layers.
        UnsupportedPipelineError: from ``bind``: no IP-Adapter is loaded, the pipeline takes none,
            or its scales are compiled into a graph (as on MindSpore). From the first step of a run:
            the call's own scale made the loop leave the adapter out (StableDiffusion3Pipeline with
            scale 0).

    Example:
        >>> pipe.set_ip_adapter_scale(0.8)
        >>> callbacks = bind(pipe, IPAdapterScale([(0.0, 0.8), (0.5, 0.2)]))
        >>> image = callbacks("a red star")[0]
    """

    def __init__(self, schedule: Schedule[Scale]) -> None:
        self._schedule: Scheduled[Scale] = Scheduled("IPAdapterScale", schedule, checked_scale)

    def on_bind(self, target: Target) -> None:
        super().on_bind(target)
        adapters = self._adapters(target.pipeline)
        for scale in self._schedule.samples():
            adapters.check("IPAdapterScale", scale)

    def on_step_end(self, step: Step) -> None:
        if not step.is_whole:
            return
        begins = step.run.state(self, _Kept).held is None
        held = self._held(step)
        if begins:
            _check_is_used(step.pipeline)
            self._compare_first(held, step.run)
        if step.index + 1 < step.num_timesteps:
            scale = self._schedule.at(step.progress)
            held.adapters.check("IPAdapterScale", scale)
            held.assign(scale)

    def _compare_first(self, held: HeldScales, run: Run) -> None:
        found, first = held.values(), self._schedule.at(0.0)
        held.adapters.check("IPAdapterScale", first)
        held.assign(first)
        if held.values() != found:
            message = (
                f"the schedule of IPAdapterScale starts with {first!r}, and the first step had "
                f"another scale, that of the pipeline: call set_ip_adapter_scale({first!r}) "
                "before the run"
            )
            run.warned(message)
            warnings.warn(message, stacklevel=3)


class IPAdapterCutoff(_OnAdapters):
    """Switch a pipeline's IP-Adapters off for the last part of a run.

    The scale is set to 0 at the end of step ``int(num_timesteps * cutoff_step_ratio)``, or of step
    ``cutoff_step_index``, as diffusers' ``IPAdapterScaleCutoffCallback`` does; with a scheduler of
    order 2, at the end of a whole step. At the end of the run, also after an error, the scales from
    before are put back.

    Args:
        cutoff_step_ratio: share of the steps after which to cut, in 0..1.
        cutoff_step_index: index of the step after which to cut, from 0. If it is beyond the run's
            last step, there is no cut, and a warning says so.

    Raises:
        ValueError: not exactly one of the two arguments is given, or it is out of range.
        TypeError: the one given is no number.
        UnsupportedPipelineError: from ``bind``: no IP-Adapter is loaded, or the pipeline takes
            none.

    Example:
        >>> image = bind(pipe, IPAdapterCutoff(0.5))("a red star")[0]
    """

    def __init__(
        self, cutoff_step_ratio: float | None = None, *, cutoff_step_index: int | None = None
    ) -> None:
        self._cutoff = Cutoff("IPAdapterCutoff", cutoff_step_ratio, cutoff_step_index)

    def on_step_end(self, step: Step) -> None:
        if self._cutoff.is_over(step) and step.run.state(self, _Kept).held is None:
            self._held(step).assign(0.0)


def _check_is_used(pipeline: Any) -> None:
    """Refuse a StableDiffusion3Pipeline whose loop leaves its adapter out: the pipeline reads the
    scale once, before the loop, and at 0 omits the adapter's embeddings from all steps."""
    if not hasattr(pipeline, "is_ip_adapter_active"):
        return
    if "ip_adapter_image_embeds" not in (getattr(pipeline, "joint_attention_kwargs", None) or {}):
        raise UnsupportedPipelineError(
            f"IPAdapterScale changes nothing in this run: {type(pipeline).__name__} was called "
            "without an image for its IP-Adapter, or with scale 0, where it leaves the image out "
            "for the whole run; start with a small scale, such as "
            "pipe.set_ip_adapter_scale(1e-3), or pass ip_adapter_image_embeds"
        )
