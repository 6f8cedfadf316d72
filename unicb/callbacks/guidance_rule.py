"""Combine the predictions of guidance by a formula of one's own."""

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

    It works on every pipeline whose loop makes ``u + g * (c - u)`` or ``c + g * (c - u)`` of the
    unconditional prediction u and the conditional one c, whatever its models, its framework, and
    the way in which it computes both. What the loop does with the result afterwards, such as
    ``guidance_rescale``, it goes on doing.

    The pipeline has to be called with guidance on, with a negative prompt where it takes one for
    that. At the end of a run, it is put back as it was.

    Example:
        >>> class Plain(GuidanceRule):
        ...     def combine(self, unconditional, conditional, scale, step):
        ...         return unconditional + (conditional - unconditional) * scale

    Args:
        scale: what :meth:`combine` is handed as its scale, a number of 0 or more, or a schedule of
            such as :class:`unicb.GuidanceSchedule` takes. None: the scale that the pipeline was
            called with, in the convention ``u + scale * (c - u)``. Parts that were given a scale of
            their own, such as the sound of LTX-2, keep it.
        interval: shares of the steps, in 0..1, between which guidance is on, as
            :class:`unicb.GuidanceInterval` takes them. Outside of it only the conditional half is
            computed, and the rule is not asked.

    Raises:
        TypeError, ValueError: an argument is none of these.
        UnsupportedPipelineError: from ``bind``: the class has no CFG, how its CFG works is not
            known, or its loop combines the two halves in another way; from the first step: the
            pipeline was called with guidance off, or with a scale so close to off that the loop
            would only amplify rounding.
    """

    owns = ("guidance",)

    #: As they were passed; where a class of your own passes on neither, these.
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
        """Return the prediction that the loop shall go on with.

        Called for each step with guidance, and in it for each of the tensors that the denoiser
        predicts. What is to be remembered from step to step is in ``step.state(self, make)``.

        Args:
            unconditional: what the denoiser predicts without the prompt, ``[rows, ...]``, in
                float32 where the model's dtype is half of that.
            conditional: what it predicts with it, of the same shape and dtype.
            scale: of guidance, in the convention ``u + scale * (c - u)``. Where the pipeline was
                called with one for each frame (Stable Video), and this rule has none, a tensor that
                combines with these.
            step: which step it is, and its operations.

        Returns:
            A tensor of the same shape and dtype.
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
