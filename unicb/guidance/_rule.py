"""Guide by a rule: replace the loop's combination by any prediction p computed from an
unconditional one u and a conditional one c.

A loop computes ``u + g * (c - u)`` from the denoiser's output. If u is replaced by
``c - (p - c) / (g - 1)``, the result is p. In loops that compute ``c + g * (c - u)``, the divisor
is g in place of g - 1.

The closer the divisor is to 0, the more the loop amplifies rounding errors in its input. If the
loop reads its scale at each step, the scale is set so that the divisor is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unicb.backend import Backend, backend_for
from unicb.errors import UnsupportedPipelineError
from unicb.guidance._form import check_form
from unicb.guidance._models import Models
from unicb.guidance._moves import BatchMoves, CallsMoves, Moved
from unicb.guidance._scale import (
    ATTRIBUTE,
    PropertyScale,
    check_guided,
    guiding_scale,
    read_at_each_step,
)
from unicb.guidance._used_part import used_part
from unicb.guidance.rule_step import Combine, RuleStep
from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts, num_timesteps_of
from unicb.tensors import dtype_name

if TYPE_CHECKING:
    from unicb.run.run import Run

AIM = "set a guidance rule"
#: Divisors below which a loop amplifies rounding errors too much: to more than 1e-4 of the effect
#: of guidance in float32, and a tenth in the other dtypes.
LEAST = {"float64": 1e-6, "float32": 1e-3, "float16": 0.02, "bfloat16": 0.1}


def check(pipeline: Any, facts: PipelineFacts) -> None:
    """Raise UnsupportedPipelineError if the loop's combination cannot be replaced by a rule."""
    check_form(Models(backend_for(pipeline), pipeline, facts, None, AIM))
    if facts.verify and facts.scale_follows:
        raise UnsupportedPipelineError(
            f"cannot {AIM} on {type(pipeline).__name__}: unicb was not proven on its loop, and of "
            "the parts of a prediction that it guides only the first can be seen"
        )


class RuleMoves:
    """``RuleMoves`` changes a run's unconditional predictions so that the loop's result is the
    rule's.

    Args:
        models: the pipeline's models.
        run: the run whose calls are changed.
        combine: the rule.
        is_cut: returns whether guidance is cut at the moment; then the rule is not called.
        latents: the loop's latents, whose shape shows which part of a prediction it uses; None if
            it has none.
        sets_scale: True if the scale that the loop reads may be set.
    """

    aim = "a rule takes two"

    def __init__(
        self,
        models: Models,
        run: Run,
        combine: Combine,
        is_cut: Callable[[], bool],
        latents: Tensor | None,
        sets_scale: bool,
    ) -> None:
        self._models, self._run, self._combine, self._is_cut = models, run, combine, is_cut
        self._latents: tuple[int, ...] = () if latents is None else tuple(latents.shape)
        facts = models.facts
        self._least = 1.0 if facts.combination == "from_unconditional" else 0.0
        self._part, self._part_of_call = 0, 0
        self._property: PropertyScale | None = None
        self._called: list[Any] = []
        if sets_scale and read_at_each_step(facts):
            names = (facts.scale_names[0].removeprefix(ATTRIBUTE), *facts.scale_follows)
            self._called = [getattr(models.pipeline, name, None) for name in names]
            self._property = PropertyScale(models)
            best = self._least + 1.0
            self._property.set(best + 1.0 if self._property.is_off(best) else best)

    def in_this_call(self) -> Moved | None:
        if self._is_cut():
            return None
        self._part_of_call = 0
        return self._moved

    def check_guided(self, found: bool) -> None:
        if not self._is_cut():
            check_guided(self._models, self._run, found)

    def step_end(self) -> None:
        self._part = 0

    def remove(self) -> None:
        if self._property is not None:
            self._property.remove()

    def combined(self, unconditional: Tensor, conditional: Tensor) -> Tensor:
        """Return the rule's result for these two predictions, in their dtype."""
        made = self._made(unconditional, conditional, 0)
        return self._models.backend.in_dtype(made, unconditional.dtype)

    def _moved(self, unconditional: Tensor, conditional: Tensor) -> Tensor:
        if "float" not in dtype_name(unconditional):
            return unconditional
        number, self._part_of_call = self._part_of_call, self._part_of_call + 1
        if number and self._models.facts.fills:  # the denoiser also returns caches
            return unconditional
        loops = self._loops(number)
        if loops == self._least:  # the loop does not guide this part (sound, for example)
            return unconditional
        by = self._well_conditioned(loops, unconditional)
        # The video comes first; its sound has another shape.
        latents = self._latents if number == 0 else ()
        part = used_part(self._models, unconditional, latents)
        u, c = part.taken(unconditional), part.taken(conditional)
        made = self._made(u, c, number)
        c = self._wide(c)
        moved = c - (made - c) / by
        return part.put_back(self._models.backend.in_dtype(moved, unconditional.dtype))

    def _loops(self, number: int) -> float:
        """Return the scale with which the loop guides this tensor of a prediction, in the loop's
        own convention."""
        if 0 < number < len(self._called) and self._called[number] is not None:
            name = self._models.facts.scale_follows[number - 1]
            return float(getattr(self._models.pipeline, name))
        return guiding_scale(self._models, self._run)[0]

    def _asked(self, number: int) -> float | Tensor:
        """Return the scale that the pipeline was called with, in the convention
        ``u + scale * (c - u)``."""
        found: Any = self._called[number] if number < len(self._called) else None
        if found is None:
            found = next(iter(self._called), None)
        if found is None:
            return guiding_scale(self._models, self._run)[0] + 1.0 - self._least
        if self._models.backend.is_tensor(found):  # a scale for each frame
            return self._wide(found) + (1.0 - self._least)
        return float(found) + 1.0 - self._least

    def _well_conditioned(self, loops: float, like: Tensor) -> float:
        by, dtype = loops - self._least, dtype_name(like)
        least = LEAST.get(dtype, 0.0)
        if abs(by) < least:
            names = " or ".join(self._models.facts.scale_names).removeprefix(ATTRIBUTE)
            self._models.mismatch(
                f"it was called with {names} of {loops:g}, and predicts in {dtype}, whose rounding "
                f"its loop would amplify {1 / abs(by):.0f} times",
                f"it has to be at least {least:g} from {self._least:g}; the rule's own scale is "
                "what scale= says",
            )
        return by

    def _made(self, u: Tensor, c: Tensor, number: int) -> Tensor:
        """Return the rule's result for two parts of predictions, in float32 or wider. ``number`` is
        the index of their tensor among those in the denoiser's output."""
        u, c = self._wide(u), self._wide(c)
        timesteps = num_timesteps_of(self._models.pipeline)
        called = self._called[number] if 0 < number < len(self._called) else None
        has_own_scale = called is not None and called != self._called[0]
        asked = self._asked(number)
        shape = tuple(u.shape)
        step = RuleStep(self._run, timesteps, self._part, shape, asked, has_own_scale)
        self._part += 1
        return combined(self._models.backend, self._combine, u, c, step)

    def _wide(self, x: Tensor) -> Tensor:
        return wide(self._models.backend, x)


def wide(backend: Backend, x: Tensor) -> Tensor:
    """Return the tensor, in float32 if it has half precision, in which sums over a picture
    overflow."""
    return backend.in_dtype(x, "float32") if dtype_name(x) in ("float16", "bfloat16") else x


def combined(
    backend: Backend, combine: Combine, unconditional: Tensor, conditional: Tensor, step: RuleStep
) -> Tensor:
    """Return a rule's result for two predictions in float32 or wider.

    Raises:
        TypeError, ValueError: the result is no tensor of their shape and dtype.
    """
    made = combine(unconditional, conditional, step)
    if not backend.is_tensor(made):
        raise TypeError(
            "a guidance rule returns a tensor of the pipeline's framework, not a "
            f"{type(made).__qualname__}"
        )
    found, wanted = ((tuple(x.shape), dtype_name(x)) for x in (made, unconditional))
    if found != wanted:
        raise ValueError(
            f"a guidance rule was handed tensors of shape {wanted[0]} and dtype {wanted[1]}, "
            f"and returned one of {found[0]} and {found[1]}; it has to return the same"
        )
    return made


class Ruling:
    """A ruling replaces a pipeline's guidance by a rule, until it is removed.

    Args:
        models: the pipeline's models.
        moves: the changes that make the loop's result the rule's.
        latents: the tensor whose rows count the batch; None if guidance takes several calls a step.
    """

    def __init__(self, models: Models, moves: RuleMoves, latents: Tensor | None) -> None:
        self._hooks: BatchMoves | CallsMoves
        try:
            if latents is None:
                self._hooks = CallsMoves(models, moves)
            else:
                self._hooks = BatchMoves(models, latents, moves)
        except BaseException:
            moves.remove()  # it may have set the loop's scale
            raise

    def step_end(self) -> None:
        """Note that a step has ended. Raises UnsupportedPipelineError if it was not as expected."""
        self._hooks.step_end()

    def remove(self) -> None:
        """Put the pipeline back as it was. Idempotent."""
        self._hooks.remove()
