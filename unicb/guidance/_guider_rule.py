"""Replace the formula by which guiders combine predictions by a guidance rule."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from unicb._outputs import with_part
from unicb.errors import UnsupportedPipelineError
from unicb.guidance._guider import check_scale, guiders_of, least_scale, way_of
from unicb.guidance._models import Models
from unicb.guidance._rule import combined, wide
from unicb.guidance.rule_step import Combine, RuleStep

if TYPE_CHECKING:
    from unicb.ops import Tensor
    from unicb.run.holds import Hold
    from unicb.run.run import Run

#: Names of the method with the formula in the frameworks' guiders.
_FORMULAS = ("forward", "construct")


def check(models: Models) -> None:
    """Raise UnsupportedPipelineError if a rule cannot replace the formula of the pipeline's
    guiders."""
    check_scale(models)
    for guider in guiders_of(models.pipeline, models.facts.guided_by):
        if way_of(models, guider) not in ("stop", None):
            raise UnsupportedPipelineError(
                f"cannot {models.aim} on this {models.name}: its guider, a "
                f"{type(guider).__name__}, takes more predictions than the two that a rule combines"
            )


class GuiderRuling:
    """A guider ruling replaces the formula of guiders by a rule, until it is removed. Whatever else
    that formula does, such as rescaling, is replaced, too.

    Args:
        models: the pipeline's models.
        run: the run whose calls are changed.
        combine: the rule.
        is_cut: returns whether guidance is cut at the moment; then the rule is not called.
    """

    def __init__(
        self, models: Models, run: Run, combine: Combine, is_cut: Callable[[], bool]
    ) -> None:
        check(models)
        self._backend, self._run = models.backend, run
        self._combine, self._is_cut = combine, is_cut
        self._guiders = guiders_of(models.pipeline, models.facts.guided_by)
        self._part = 0
        self._holds: list[Hold] = []
        for guider in self._guiders:
            name = next(x for x in _FORMULAS if hasattr(guider, x))
            formula = partial(self._combined, guider, getattr(guider, name))
            self._holds.append(run.hold(guider, name, formula))

    def step_end(self) -> None:
        self._part = 0

    def remove(self) -> None:
        while self._holds:
            self._holds.pop().release()

    def _combined(
        self,
        guider: Any,
        formula: Callable[..., Any],
        pred_cond: Tensor,
        pred_uncond: Tensor | None = None,
        **others: Any,
    ) -> Any:
        made = formula(pred_cond, pred_uncond, **others)
        if pred_uncond is None or self._is_cut():
            return made
        u, c = (wide(self._backend, x) for x in (pred_uncond, pred_cond))
        found = combined(self._backend, self._combine, u, c, self._step(guider, tuple(u.shape)))
        return with_part(made, 0, self._backend.in_dtype(found, pred_cond.dtype))

    def _step(self, guider: Any, shape: tuple[int, ...]) -> RuleStep:
        """Describe the step to the rule, for its next part: sound, for example, comes after
        video."""
        scale, first = guider.guidance_scale, self._guiders[0].guidance_scale
        asked = float(scale) + 1.0 - least_scale(guider)
        part, self._part = self._part, self._part + 1
        has_own_scale = part > 0 and scale != first
        return RuleStep(self._run, self._run.num_timesteps, part, shape, asked, has_own_scale)
