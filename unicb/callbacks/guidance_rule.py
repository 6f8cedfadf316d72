"""Combine the predictions of guidance by a formula of your own."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from unicb.callback import Callback
from unicb.callbacks._cutoff import Cutoff
from unicb.callbacks._schedules import Schedule, Scheduled
from unicb.callbacks.guidance_interval import GuidedSteps
from unicb.checks import number_from_0, share
from unicb.guidance.rule_step import RuleStep
from unicb.ops import Tensor
from unicb.step import Step

if TYPE_CHECKING:
    from unicb import Target


class GuidanceRule(Callback):
    """A guidance rule is classifier-free guidance by a formula of your own: override
    :meth:`combine`.

    It works on every pipeline whose loop computes ``u + g * (c - u)`` or ``c + g * (c - u)`` from
    the unconditional prediction u and the conditional one c, whatever its models and framework, and
    whether it computes both in one call or in several. What the loop does with the result, such as
    ``guidance_rescale``, stays.

    Call the pipeline with guidance on, also with a negative prompt if its guidance needs one. At
    the end of a run, the pipeline's settings are put back.

    Example:
        >>> class Plain(GuidanceRule):
        ...     def combine(self, unconditional, conditional, scale, step):
        ...         return unconditional + (conditional - unconditional) * scale

    Args:
        scale: the scale for :meth:`combine`: a number of 0 or more, or a schedule as
            :class:`unicb.GuidanceSchedule` takes it. None: the scale that the pipeline was called
            with, in the convention ``u + scale * (c - u)``. Parts of the prediction that the call
            gives a scale of their own, such as the sound of LTX-2, keep it.
        interval: ``(start, stop)`` in 0..1, as for :class:`unicb.GuidanceInterval`. Outside the
            interval only the conditional half is computed, and :meth:`combine` is not called.

    Raises:
        TypeError, ValueError: an argument is of the wrong type, or out of range.
        UnsupportedPipelineError: from ``bind``: the class has no classifier-free guidance, unicb
            does not know how it works there, or the loop combines the two halves in another way.
            From the first step: the pipeline was called with guidance off, or with a scale at which
            guidance is so weak that the loop would only amplify rounding errors.
    """

    owns = ("guidance",)

    #: The arguments as passed; defaults for a subclass that does not call ``super().__init__``.
    scale: Schedule[float] | None = None
    interval: tuple[float, float] = (0.0, 1.0)
    _scheduled: Scheduled[float] | None = None
    _guided: GuidedSteps | None = None

    def __init__(
        self, scale: Schedule[float] | None = None, interval: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        self.scale, self.interval = scale, interval
        name = type(self).__name__
        if scale is not None:
            self._scheduled = Scheduled(f"{name}'s scale", scale, number_from_0)
        start, stop = _shares(interval)
        if (start, stop) != (0.0, 1.0):
            self._guided = GuidedSteps(start, Cutoff(name, stop, None))

    @abstractmethod
    def combine(
        self, unconditional: Tensor, conditional: Tensor, scale: float | Tensor, step: RuleStep
    ) -> Tensor:
        """Return the prediction with which the loop goes on.

        Called in each step with guidance, once for each tensor that the denoiser predicts. Keep
        values from step to step in ``step.state(self, make)``.

        Args:
            unconditional: the denoiser's prediction without the prompt, ``[rows, ...]``; float32 if
                the model computes in float16 or bfloat16.
            conditional: the prediction with the prompt, of the same shape and dtype.
            scale: the guidance scale, in the convention ``u + scale * (c - u)``. A tensor that
                broadcasts with the predictions, if the pipeline was called with a scale for each
                frame (Stable Video) and the rule has no scale of its own.
            step: the step, with its index and its tensor operations.

        Returns:
            A tensor of the shape and dtype of ``conditional``.
        """

    def on_bind(self, target: Target) -> None:
        target.guidance.check_rule()
        if self._scheduled is not None:
            self._scheduled.samples()
        if self._guided is not None:
            self._guided.on_bind(target)

    def before_first_step(self, step: Step) -> None:
        step.combine_guidance(self._combined)
        if self._guided is not None and not self._guided.begins_after(step):
            step.cut_guidance()

    def on_step_end(self, step: Step) -> None:
        if self._guided is not None:
            self._guided.on_step_end(step)

    def _combined(self, unconditional: Tensor, conditional: Tensor, step: RuleStep) -> Tensor:
        scale = step.guidance_scale
        if self._scheduled is not None and not step.has_own_scale:
            scale = self._scheduled.at(step.progress)
        return self.combine(unconditional, conditional, scale, step)


def _shares(interval: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(interval, tuple | list) or len(interval) != 2:
        raise TypeError(f"interval must be two shares of the steps, not {interval!r}")
    must = "is a share of the steps and must lie in 0..1"
    start, stop = (
        share(f"the {name} of interval", value, must)
        for name, value in zip(("start", "stop"), interval, strict=True)
    )
    if start >= stop:
        raise ValueError(f"interval must start before it stops, and {interval!r} does not")
    return start, stop
