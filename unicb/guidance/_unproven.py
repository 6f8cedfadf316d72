"""Change guidance on a loop that unicb was not proven on: observe its first guided step.

If the change applies to that step already, the step is computed in full, and the loop's result is
replaced, on its way to the scheduler, by the changed one. From the next step on, the loop is
treated as a proven one; or the run ends with an error that says what was observed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from unicb.guidance._models import Models
from unicb.guidance._observed import Combination
from unicb.guidance._scale import PropertyScale, guides, scale_of
from unicb.guidance._watch import LoopWatch, Seen
from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts

if TYPE_CHECKING:
    from unicb.guidance import Cut, Scaling
    from unicb.run.run import Run


def settled(models: Models, seen: Seen) -> PipelineFacts:
    """Return the facts as the step has shown them.

    Raises:
        UnsupportedPipelineError: no combination fits the step, or it contradicts facts that are
            essential.
    """
    facts, found = models.facts, seen.combination
    model = " or ".join(facts.denoisers)
    if found is None:
        models.mismatch(
            "its loop hands to its scheduler what was not seen to be u + g * (c - u) of what its "
            f"{model} predicts",
            "unicb, not proven on this loop, has to see that in its first step with guidance",
        )
    if (facts.cfg == "batch") != (seen.calls < len(seen.parts)):
        models.mismatch(
            f"its loop takes {seen.calls} calls of its {model} for {len(seen.parts)} parts",
            f"guidance should come in {'one' if facts.cfg == 'batch' else 'a call for each'}",
        )
    order = facts.order[: len(seen.parts)]
    if len(seen.parts) != len(order) or len(order) < facts.least_blocks:
        models.mismatch(
            f"its {model} predicts {len(seen.parts)} parts in a step",
            f"guidance should have {len(facts.order)}",
        )
    if order[found.conditional] != "conditional":
        if len(facts.order) != 2 or facts.cfg != "batch":
            models.mismatch(
                f"part {found.conditional} of what its {model} predicts is the conditional one, as "
                "its loop combines them",
                f"part {order.index('conditional')} should be",
            )
        order = order[::-1]
    # Keep the facts about a third part that this run does not have.
    return replace(facts, order=(*order, *facts.order[len(order) :]), verify=False)


def wrong_scale(models: Models, run: Run, seen: Seen) -> tuple[str, str] | None:
    """Return in words what was found and what was expected, if the loop guides with another scale
    than its variables say; None otherwise."""
    facts, found = models.facts, seen.combination
    said = scale_of(models.pipeline, facts, run)
    if found is None or said is None or facts.combination == "other":
        return None
    order = facts.order[: len(found.coefficients)]
    if "perturbed" in order:  # the perturbed part's scale adds to the conditional coefficient
        scale = 1 - found.coefficients[order.index("unconditional")] / found.total
    else:
        scale = found.scale
    scale -= facts.combination == "from_conditional"
    if abs(scale - said) <= (1e-3 + 6 * found.error) * found.scale:
        return None
    names = " or ".join(facts.scale_names)
    return f"its loop guides with a scale of {scale:.4g}", f"{names} says {said:.4g}"


def remade(models: Models, seen: Seen, facts: PipelineFacts, scale: float) -> Tensor:
    """Compute the loop's result for the observed parts with ``scale`` (1: the conditional part
    alone).

    Raises:
        UnsupportedPipelineError: as from :func:`remade_by`.
    """

    def scaled(unconditional: Tensor, conditional: Tensor) -> Tensor:
        return unconditional + (conditional - unconditional) * scale

    return remade_by(models, seen, facts, None if scale == 1.0 else scaled)


def remade_by(
    models: Models,
    seen: Seen,
    facts: PipelineFacts,
    combine: Callable[[Tensor, Tensor], Tensor] | None,
) -> Tensor:
    """Compute the loop's result for the observed parts as if it combined the unconditional and the
    conditional one by ``combine``; None: the conditional part alone.

    Raises:
        UnsupportedPipelineError: the loop does more than combine the parts.
    """
    found = seen.combination
    assert found is not None
    total = round(found.total)
    plain = found.how == "rows" and not found.varies and abs(total) == 1
    if not plain or abs(found.total - total) > 1e-3 + 6 * found.error * found.scale:
        models.mismatch(
            "its loop, which unicb was not proven on, does more to what it has combined "
            f"(its parts have {', '.join(f'{x:.4g}' for x in found.coefficients)} in it)",
            "the step that is to be guided otherwise has to be the plain sum of its parts",
        )
    return _combined(seen.parts, facts.order, found, combine, total)


def _combined(
    parts: Sequence[Tensor],
    order: Sequence[str],
    found: Combination,
    combine: Callable[[Tensor, Tensor], Tensor] | None,
    total: int,
) -> Tensor:
    """Compute ``total * combine(u, c)``, and add the contributions of other parts."""
    conditional = parts[found.conditional]
    of = {name: parts[i] for i, name in enumerate(order[: len(parts)])}
    made = conditional
    if combine is not None:
        made = combine(of["unconditional"], conditional)
    made = made if total == 1 else made * -1.0
    if "perturbed" in of:
        weight = found.coefficients[order.index("perturbed")]
        made = made + (of["perturbed"] - conditional) * weight
    return made


class SeenFacts:
    """``SeenFacts`` holds what the steps of one run have shown of its loop.

    Attributes:
        facts: the facts as observed; None until a step was observed.
        wrong_scale: the result of :func:`wrong_scale`.
        is_to_be_seen_again: True if a step's result was replaced. Its loop may remember the parts,
            as with momentum, which shows in the next step with guidance.
    """

    def __init__(self) -> None:
        self.facts: PipelineFacts | None = None
        self.wrong_scale: tuple[str, str] | None = None
        self.is_to_be_seen_again = False


class Look:
    """Observe the first step with guidance of a loop that unicb was not proven on.

    Args:
        models: the pipeline's models.
        run: the run of the loop.
        seen: what its steps have shown; the observed step is added.
    """

    def __init__(self, models: Models, run: Run, seen: SeenFacts) -> None:
        self._models, self._run, self._seen = models, run, seen
        self._watch = LoopWatch(models, run, self._see, self._is_due)

    def step_end(self) -> None:
        """Note that a step has ended. Raises UnsupportedPipelineError if it could not be
        observed."""
        if self._seen.facts is None:
            self._watch.check_seen()
        else:
            self._watch.remove()

    def remove(self) -> None:
        """Stop observing. Idempotent."""
        self._watch.remove()

    def _is_due(self) -> bool:
        """Return whether this step has to be observed or changed."""
        return self._seen.facts is None

    def _see(self, seen: Seen) -> Tensor | None:
        """Settle the facts from a step; return the tensor for the scheduler in place of the loop's,
        or None."""
        models = self._models
        if "perturbed" in models.facts.order and not guides(models.pipeline, self._run):
            return None  # its two parts are the conditional and the perturbed one
        if self._seen.facts is None:
            self._seen.facts = settled(self._models, seen)
            self._seen.wrong_scale = wrong_scale(self._models, self._run, seen)
        return None

    def _remade(self, seen: Seen, scale: float) -> Tensor:
        """Compute the tensor for the scheduler in this step."""
        self._seen.is_to_be_seen_again = True
        return remade(self._models, seen, self._known().facts, scale)

    def _known(self) -> Models:
        """Return the pipeline's models, with the facts as observed."""
        facts = self._seen.facts
        assert facts is not None
        return self._models.with_facts(facts)


class SecondLook(Look):
    """Check that a loop still guides the same way after a step whose result was replaced.

    Args:
        models: the pipeline's models.
        run: the run of the loop.
        first: what that step has shown.
    """

    def __init__(self, models: Models, run: Run, first: SeenFacts) -> None:
        super().__init__(models, run, SeenFacts())
        self._first = first

    def _see(self, seen: Seen) -> Tensor | None:
        super()._see(seen)
        if self._seen.wrong_scale is not None and self._first.wrong_scale is None:
            self._models.mismatch(*self._seen.wrong_scale)
        return None


class UnprovenCut(Look):
    """Cut guidance once a guided step was observed; ``make`` makes the cut."""

    holds_scale = False

    def __init__(
        self, models: Models, run: Run, make: Callable[[Models], Cut], seen: SeenFacts
    ) -> None:
        super().__init__(models, run, seen)
        self._make, self._cut = make, cast("Cut | None", None)

    def _is_due(self) -> bool:
        return True

    def _see(self, seen: Seen) -> Tensor | None:
        super()._see(seen)
        return self._remade(seen, 1.0)

    def step_end(self) -> None:
        if self._cut is not None:
            return self._cut.step_end()
        super().step_end()
        if self._seen.facts is not None:
            self._cut = self._make(self._known())

    def restore(self) -> None:
        if self._cut is not None:
            self._cut.restore()
        self.remove()

    def remove(self) -> None:
        super().remove()
        if self._cut is not None:
            self._cut.remove()


class UnprovenScale(Look):
    """Set the scale of guidance once a guided step was observed; ``make`` makes the scaling."""

    def __init__(
        self, models: Models, run: Run, make: Callable[[Models], Scaling], seen: SeenFacts
    ) -> None:
        super().__init__(models, run, seen)
        self._make, self._scaling = make, cast("Scaling | None", None)
        self._scale: float | None = None
        self._again: Look | None = None

    def is_off(self, scale: float) -> bool:
        return scale <= self._models.facts.guided_above

    def set(self, scale: float | None) -> None:
        self._scale = scale
        if self._scaling is not None:
            self._scaling.set(scale)

    def _is_due(self) -> bool:
        return super()._is_due() or self._scale is not None

    def _see(self, seen: Seen) -> Tensor | None:
        super()._see(seen)
        if self._seen.wrong_scale is not None:
            self._models.mismatch(*self._seen.wrong_scale)
        if self._scale is None:
            return None
        more = self._known().facts.combination == "from_conditional"
        return self._remade(seen, self._scale + more)

    def step_end(self) -> None:
        if self._again is not None:
            self._again.step_end()
        if self._scaling is not None:
            return self._scaling.step_end()
        super().step_end()
        if self._seen.facts is not None:
            self._scaling = self._make(self._known())
            self._scaling.set(self._scale)
            if self._seen.is_to_be_seen_again:  # hooked outside, it sees what the loop sees
                self._again = SecondLook(self._known(), self._run, self._seen)

    def remove(self) -> None:
        super().remove()
        for made in (self._again, self._scaling):
            if made is not None:
                made.remove()


class UnprovenProperty:
    """Set the attribute from which the loop should read its scale, and check that it does.

    Args:
        models: the pipeline's models.
        run: the run of the loop.
        scaling: the object that sets the attribute.
    """

    def __init__(self, models: Models, run: Run, scaling: PropertyScale) -> None:
        self._models, self._run, self._scaling = models, run, scaling
        self._first = scale_of(models.pipeline, models.facts, run)
        self._watch = LoopWatch(models, run, self._see, self._is_changed)

    def is_off(self, scale: float) -> bool:
        return self._scaling.is_off(scale)

    def set(self, scale: float | None) -> None:
        self._scaling.set(scale)

    def step_end(self) -> None:
        self._watch.check_seen()

    def remove(self) -> None:
        self._watch.remove()
        self._scaling.remove()

    def _is_changed(self) -> bool:
        """Return whether the scale has changed since the beginning; before that, nothing can be
        checked."""
        return scale_of(self._models.pipeline, self._models.facts, self._run) != self._first

    def _see(self, seen: Seen) -> Tensor | None:
        settled(self._models, seen)
        wrong = wrong_scale(self._models, self._run, seen)
        if wrong is not None:
            self._models.mismatch(*wrong)
        self._watch.stop_after_this()
        return None
