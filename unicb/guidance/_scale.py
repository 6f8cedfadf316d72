"""Set another scale of guidance than the one that a pipeline was called with.

If the loop reads its scale at each step, that scale is set. Otherwise the scale is a local variable
of the loop, out of reach. But predictions pass through the denoiser's call: from the conditional
prediction c and the unconditional one u, the loop computes ``u + g * (c - u)``, with its own g. If
u is replaced by ``c + k * (u - c)``, where ``k = (s - 1) / (g - 1)``, the result is ``u + s * (c -
u)``, as with the scale s. For loops that compute ``c + g * (c - u)`` the same holds with ``k = s /
g``. c is not changed, because some loops rescale their result by the norm or the deviation of c.
"""

from __future__ import annotations

import math
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

from unicb.errors import UnsupportedPipelineError
from unicb.guidance._attributes import Ours, put_back
from unicb.guidance._models import Models
from unicb.guidance._moves import BatchMoves, CallsMoves, Moved
from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts
from unicb.pipelines.source import CallSource

if TYPE_CHECKING:
    from unicb.run.run import Run

AIM = "set guidance"
#: Prefix of names of the pipeline's attributes, among names of the loop's local variables.
ATTRIBUTE = "self."


def read_at_each_step(facts: PipelineFacts) -> bool:
    """Return whether the loop reads its scale from the pipeline, after it has called the
    denoiser."""
    return facts.guidance_scale == "property" and facts.scale_names[0].startswith(ATTRIBUTE)


def scale_of(pipeline: Any, facts: PipelineFacts, run: Run) -> float | None:
    """Return the scale with which the loop guides its current step; None if no name in
    ``facts.scale_names`` exists."""
    for name in facts.scale_names:
        if name.startswith(ATTRIBUTE):
            step = run.target.block_step
            holder = pipeline if step is None else step.state
            value = getattr(holder, name.removeprefix(ATTRIBUTE), None)
        else:
            value = run.loop_locals([name]).get(name)
        if isinstance(value, Real):
            return float(value)
        if value is not None and len(getattr(value, "shape", (0,))) == 1 and len(value):
            return float(value[min(run.index + 1, len(value) - 1)])  # a scale for each step
    return None


def guides(pipeline: Any, run: Run) -> bool:
    """Return whether the loop has guidance on, from the pipeline's property or, in classes without
    one, from the loop's local variable."""
    name = "do_classifier_free_guidance"
    found = getattr(pipeline, name, None)
    return bool(run.loop_locals([name]).get(name, True) if found is None else found)


def has_scale(kind: type, facts: PipelineFacts) -> bool:
    """Return whether a class's loop may have a scale with a name in ``facts.scale_names``: as an
    attribute, or as a local variable of a method. True if the class's code is not found."""
    there = CallSource.of(kind).local_names
    if not there:
        return True
    return any(name.startswith(ATTRIBUTE) or name in there for name in facts.scale_names)


def without_guidance(
    pipeline: Any, facts: PipelineFacts, scale: float | None, aim: str = AIM
) -> UnsupportedPipelineError:
    """Return the error for a run that was called without guidance and is to get some."""
    kind = type(pipeline)
    taken = CallSource.of(kind).parameters
    names = [name.removeprefix(ATTRIBUTE).lstrip("_") for name in facts.scale_names]
    argument = next((name for name in names if name in taken), "guidance_scale")
    found = "" if scale is None else f" (its {argument} is {scale:g})"
    above = facts.guided_above if math.isfinite(facts.guided_above) else 1.0
    negative = " and a negative_prompt" if facts.cfg == "calls" else ""
    return UnsupportedPipelineError(
        f"cannot {aim} in this run: {kind.__name__} was called with guidance off{found}; call it "
        f"with {argument} above {above:g}{negative}"
    )


class PropertyScale:
    """Set the attribute from which the loop reads its scale."""

    def __init__(self, models: Models) -> None:
        facts = models.facts
        self._pipeline = pipeline = models.attributes
        self._off = facts.guided_above
        self._name = facts.scale_names[0].removeprefix(ATTRIBUTE)
        if not hasattr(pipeline, self._name):
            raise UnsupportedPipelineError(
                f"cannot {AIM} on {models.name}: it has no attribute {self._name}, where its loop "
                "should read its scale"
            )
        before = getattr(pipeline, self._name)
        follow = [name for name in facts.scale_follows if getattr(pipeline, name, None) == before]
        self._before = {name: getattr(pipeline, name) for name in (self._name, *follow)}
        self._set: dict[str, Ours] = {}

    def is_off(self, scale: float) -> bool:
        # The property may depend on more than this scale, such as a scale for sound.
        found = {name: getattr(self._pipeline, name) for name in self._before}
        try:
            for name in found:
                setattr(self._pipeline, name, scale)
            asked = getattr(self._pipeline, "do_classifier_free_guidance", None)
        finally:
            for name, value in found.items():
                setattr(self._pipeline, name, value)
        return not asked if asked is not None else scale <= self._off

    def set(self, scale: float | None) -> None:
        if scale is None:
            return
        for name in self._before:
            self._set[name] = Ours(scale)
            setattr(self._pipeline, name, self._set[name])

    def step_end(self) -> None:
        pass

    def remove(self) -> None:
        for name in self._set:
            put_back(self._pipeline, name, self._before[name], self._set)
        self._set.clear()


class ScaleMoves:
    """``ScaleMoves`` changes a run's unconditional predictions so that guidance has another
    scale."""

    def __init__(self, models: Models, run: Run) -> None:
        self._models, self._run = models, run
        self.scale: float | None = None

    @property
    def aim(self) -> str:
        return "" if self.scale is None else "guidance of two can be scaled"

    def in_this_call(self) -> Moved | None:
        factor = self.factor()
        return None if factor == 1.0 else partial(_moved, factor)

    def factor(self) -> float:
        """Return this step's factor k for the difference between the two predictions."""
        if self.scale is None:
            return 1.0
        loops, least = guiding_scale(self._models, self._run)
        if loops == self.scale:
            return 1.0
        return (self.scale - least) / (loops - least)

    def check_guided(self, found: bool) -> None:
        if self.scale is not None:
            check_guided(self._models, self._run, found)

    def step_end(self) -> None:
        pass

    def remove(self) -> None:
        pass


def guiding_scale(models: Models, run: Run) -> tuple[float, float]:
    """Return the scale with which the loop guides its current step, and the scale at which its
    result is the conditional prediction.

    Raises:
        UnsupportedPipelineError: the loop has no scale, or the two are equal.
    """
    facts, name = models.facts, " or ".join(models.facts.scale_names)
    loops = scale_of(models.pipeline, facts, run)
    if loops is None:
        models.mismatch(f"it has no scale called {name}", "its loop should have one")
    least = 1.0 if facts.combination == "from_unconditional" else 0.0
    if loops == least:
        raise without_guidance(models.pipeline, facts, loops, models.aim)
    return loops, least


def check_guided(models: Models, run: Run, found: bool) -> None:
    """Raise UnsupportedPipelineError if the first step has no guidance (``found`` is False) and
    should have."""
    if not found and run.index < 0:
        pipeline, facts = models.pipeline, models.facts
        raise without_guidance(pipeline, facts, scale_of(pipeline, facts, run), models.aim)


def _moved(factor: float, unconditional: Any, conditional: Any) -> Any:
    """Return ``conditional + factor * (unconditional - conditional)``. A tensor that is not
    floating-point is returned unchanged."""
    if "float" not in str(getattr(unconditional, "dtype", "")).lower():
        return unconditional
    return conditional + (unconditional - conditional) * factor


class MovedScale:
    """Set another scale of guidance by changing the unconditional prediction.

    Args:
        models: the pipeline's models.
        run: the run whose calls are changed.
        latents: the tensor whose rows count the batch; None if guidance takes several calls a step.
    """

    def __init__(self, models: Models, run: Run, latents: Tensor | None) -> None:
        self._off = models.facts.guided_above
        self._moves = ScaleMoves(models, run)
        self._hooks: BatchMoves | CallsMoves
        if latents is None:
            self._hooks = CallsMoves(models, self._moves)
        else:
            self._hooks = BatchMoves(models, latents, self._moves)

    def is_off(self, scale: float) -> bool:
        return scale <= self._off

    def set(self, scale: float | None) -> None:
        self._moves.scale = scale

    def step_end(self) -> None:
        self._hooks.step_end()

    def remove(self) -> None:
        self._hooks.remove()
