"""Provide published methods of guidance, under diffusers' names for them.

Plain guidance computes ``u + scale * (c - u)`` from the unconditional prediction u and the
conditional one c. Each class here uses another formula, row by row, so that a picture does not
depend on the others in its batch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from unicb.callbacks._schedules import Schedule
from unicb.callbacks.guidance_rule import GuidanceRule
from unicb.checks import number, number_above_0, share, whole_number
from unicb.errors import UnsupportedPipelineError
from unicb.guidance.rule_step import RuleStep
from unicb.ops import Tensor
from unicb.tensors import dot, norm, std

if TYPE_CHECKING:
    from unicb import Target

#: Added to the square of a norm, to avoid a division by 0 if a prediction is all zeros. Squares
#: here are mean squares: sums of squares divided by the number of elements.
_TINY = 1e-12
#: A factor that makes every positive number above 1e-30 larger than 1.
_STEEP = 1e30
#: Names of local variables in loops that rescale the combined prediction by norms.
_NORMS = {"noise_norm", "comb_norm"}


class AdaptiveProjectedGuidance(GuidanceRule):
    """Guide by adaptive projected guidance (APG) of Sadat et al., "Eliminating Oversaturation and
    Artifacts of High Guidance Scales in Diffusion Models" (2024, arXiv:2410.02416).

    The difference d = c - u is added to ``momentum`` times that of the step before, and shortened
    to a length of ``norm``, if it is longer. Its part in the direction of c, which saturates
    colours, counts ``eta`` times: ``u + scale * (d - p + eta * p)``, where p = c (d·c) / (c·c).

    Args:
        eta: weight of the part in the direction of c; 1.0 leaves the difference as it is.
        norm: the greatest length of a row's difference; None: no limit.
        momentum: weight of the step before; the paper uses negative numbers; None: 0.
        scale, interval: as for :class:`unicb.GuidanceRule`.

    Example:
        >>> image = bind(pipe, AdaptiveProjectedGuidance(10.0))("a red star")[0]
    """

    def __init__(
        self,
        scale: Schedule[float] | None = None,
        *,
        eta: float = 1.0,
        norm: float | None = 15.0,
        momentum: float | None = None,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(scale, interval)
        self._eta = number("eta", eta)
        self._norm = None if norm is None else number_above_0("norm", norm)
        self._momentum = None if momentum is None else number("momentum", momentum)

    def combine(
        self, unconditional: Tensor, conditional: Tensor, scale: float | Tensor, step: RuleStep
    ) -> Tensor:
        ops, c = step.ops, conditional
        d = c - unconditional
        if self._momentum is not None:
            kept: list[Tensor] = step.state(self, list)
            d = d + kept.pop() * self._momentum if kept else d
            kept.append(d)
        if self._norm is not None:
            length = ops.clamp(norm(ops, d), self._norm, math.inf)
            d = d * (self._norm / length)
        along = c * (dot(ops, d, c, average=True) / (dot(ops, c, c, average=True) + _TINY))
        return unconditional + (d - along + along * self._eta) * scale


class ClassifierFreeZeroStarGuidance(GuidanceRule):
    """Guide by CFG-Zero* of Fan et al., "CFG-Zero*: Improved Classifier-Free Guidance for Flow
    Matching Models" (2025, arXiv:2503.18886).

    u is stretched to be nearest to c: ``v + scale * (c - v)``, where v = u (c·u) / (u·u). In the
    first ``zero_init_steps`` steps, the prediction is 0, so that nothing moves; that is for models
    which predict a velocity, and ``bind`` refuses it on others.

    Args:
        zero_init_steps: number of first steps whose prediction is 0; 0: none.
        scale, interval: as for :class:`unicb.GuidanceRule`.

    Example:
        >>> rule = ClassifierFreeZeroStarGuidance(zero_init_steps=0)
        >>> image = bind(pipe, rule)("a red star")[0]
    """

    def __init__(
        self,
        scale: Schedule[float] | None = None,
        *,
        zero_init_steps: int = 1,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(scale, interval)
        self._zero_init_steps = whole_number("zero_init_steps", zero_init_steps, least=0)

    def on_bind(self, target: Target) -> None:
        super().on_bind(target)
        if self._zero_init_steps:
            check_zero_steps(target)

    def combine(
        self, unconditional: Tensor, conditional: Tensor, scale: float | Tensor, step: RuleStep
    ) -> Tensor:
        ops, u, c = step.ops, unconditional, conditional
        if step.index < self._zero_init_steps:
            refuse_rescaling(step)
            return c * 0.0
        u = u * (dot(ops, c, u, average=True) / (dot(ops, u, u, average=True) + _TINY))
        return u + (c - u) * scale


def check_zero_steps(target: Target) -> None:
    """Raise UnsupportedPipelineError if the pipeline cannot use a prediction of 0."""
    scheduler = getattr(target.pipeline, "scheduler", None)
    predicts = getattr(getattr(scheduler, "config", None), "prediction_type", None)
    if predicts in ("epsilon", "sample"):
        raise UnsupportedPipelineError(
            f"cannot begin with steps of 0 on {target.name}: they are for models that predict "
            f"a velocity, and its scheduler takes {predicts}; pass zero_init_steps=0"
        )
    code = target.source.code
    if code is not None and _NORMS & {*code.co_varnames}:
        raise UnsupportedPipelineError(
            f"cannot begin with steps of 0 on {target.name}: its loop brings what it combines "
            "to the norm of the conditional prediction, and would divide by 0; pass "
            "zero_init_steps=0"
        )


def refuse_rescaling(step: RuleStep) -> None:
    """Raise UnsupportedPipelineError if the loop divides the combined prediction by its
    deviation."""
    pipeline, name = step.run.pipeline, "guidance_rescale"
    if step.run.loop_locals([name]).get(name) or getattr(pipeline, name, None):
        raise UnsupportedPipelineError(
            f"cannot begin with steps of 0 in this run: {type(pipeline).__name__} was called with "
            f"{name}, and would divide by 0; pass zero_init_steps=0"
        )


class TangentialClassifierFreeGuidance(GuidanceRule):
    """Guide by tangential guidance (TCFG) of Kwon et al., "TCFG: Tangential Damping Classifier-free
    Guidance" (2025, arXiv:2503.18137).

    u is projected onto the first right singular vector of the two predictions, which gives v:
    ``v + scale * (c - v)``. For two rows, that vector comes from an eigenvector of a two by two
    matrix, in closed form: ``c * (h + sqrt(h * h + (c·u)²)) + u * (c·u)``, where h is half of c·c -
    u·u.

    Example:
        >>> image = bind(pipe, TangentialClassifierFreeGuidance())("a red star")[0]
    """

    def combine(
        self, unconditional: Tensor, conditional: Tensor, scale: float | Tensor, step: RuleStep
    ) -> Tensor:
        ops, u, c = step.ops, unconditional, conditional
        cc, uu, cu = (dot(ops, *pair, average=True) for pair in ((c, c), (u, u), (c, u)))
        half = (cc - uu) / 2.0
        root = (half * half + cu * cu) ** 0.5
        # Two formulas for one direction; the one that is taken has no cancellation.
        c_is_longer = ops.clamp(half * _STEEP, 0.0, 1.0)
        v = (c * (root + half) + u * cu) * c_is_longer
        v = v + (c * cu + u * (root - half)) * (1.0 - c_is_longer)
        u = v * (dot(ops, u, v, average=True) / (dot(ops, v, v, average=True) + _TINY))
        return u + (c - u) * scale


class GuidanceRescale(GuidanceRule):
    """Rescale another rule's prediction as in Lin et al., "Common Diffusion Noise Schedules and
    Sample Steps are Flawed" (2023, arXiv:2305.08891), section 3.4.

    The other rule's prediction p becomes
    ``p * (guidance_rescale * std(c) / std(p) + 1 - guidance_rescale)``.

    Args:
        rule: the rule to rescale; its scale and interval apply.
        guidance_rescale: strength in 0..1: 0.0 leaves p unchanged, 1.0 gives p the standard
            deviation of c.

    Example:
        >>> rescaled = GuidanceRescale(TangentialClassifierFreeGuidance(), 0.7)
        >>> image = bind(pipe, rescaled)("a red star")[0]
    """

    def __init__(self, rule: GuidanceRule, guidance_rescale: float = 0.7) -> None:
        if not isinstance(rule, GuidanceRule):
            raise TypeError(f"rule must be a GuidanceRule, not a {type(rule).__qualname__}")
        super().__init__(rule.scale, rule.interval)
        self._rule, self._rescale = rule, share("guidance_rescale", guidance_rescale)

    def on_bind(self, target: Target) -> None:
        super().on_bind(target)
        self._rule.on_bind(target)

    def combine(
        self, unconditional: Tensor, conditional: Tensor, scale: float | Tensor, step: RuleStep
    ) -> Tensor:
        p = self._rule.combine(unconditional, conditional, scale, step)
        ratio = std(step.ops, conditional) / (std(step.ops, p) + _TINY)
        return p * (ratio * self._rescale + (1.0 - self._rescale))
