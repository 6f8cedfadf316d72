"""Cut classifier-free guidance (CFG) on a pipeline, change its scale, or replace its formula.

With CFG on, a pipeline's loop computes an unconditional prediction beside the conditional one and
combines them as ``u + g * (c - u)``. Some loops call the denoiser once, on a batch of several
blocks of rows; others call it several times a step. Callbacks cannot reach everything that this
involves: much of it is in local variables of the loop. But all of it passes through the denoiser's
call.

So the unconditional part is left out of that call, and the conditional prediction is returned in
its place: the loop then combines ``u = c``, which gives exactly ``c``, and half of the work is
saved. If the loop reads at each step whether guidance is on, it is enough to switch it off.

The denoiser's call is also where guidance gets another scale, if the loop keeps a copy of its own
(see ``_scale.py``), or another formula (see ``_rule.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from unicb.backend import Backend, backend_for
from unicb.errors import UnsupportedPipelineError
from unicb.guidance._batch import BatchCut
from unicb.guidance._calls import CallsCut
from unicb.guidance._engines import check_halves_are_together
from unicb.guidance._form import check_form
from unicb.guidance._guider import GuiderCut, GuiderScale, guiders_of, is_on
from unicb.guidance._guider import check as check_guiders
from unicb.guidance._guider import check_scale as check_guider_scale
from unicb.guidance._inference import facts_of_class
from unicb.guidance._models import Models
from unicb.guidance._rule import AIM as RULE_AIM
from unicb.guidance._rule import check as check_rule
from unicb.guidance._scale import (
    AIM,
    MovedScale,
    PropertyScale,
    guides,
    read_at_each_step,
    scale_of,
    without_guidance,
)
from unicb.guidance._switch import SwitchCut
from unicb.guidance._unproven import SeenFacts, UnprovenCut, UnprovenProperty, UnprovenScale
from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts
from unicb.pipelines.modular import blocks_of

if TYPE_CHECKING:
    from unicb.run.run import Run

__all__ = [
    "Cut",
    "Guidance",
    "Scaling",
    "check",
    "check_scaling",
    "cut",
    "facts_of",
    "is_off",
    "scaling",
]


class Cut(Protocol):
    """A cut leaves guidance out on a pipeline, until it is removed.

    Attributes:
        holds_scale: True if the cut works by setting the pipeline's guidance scale.
    """

    holds_scale: bool

    def step_end(self) -> None:
        """Note that a step has ended. Raises UnsupportedPipelineError if it was not as expected."""

    def restore(self) -> None:
        """Remove the cut, and make the models' caches forget what they kept: they have nothing of
        the unconditional half from the last steps."""

    def remove(self) -> None:
        """Put the pipeline back as it was. Idempotent."""


class Scaling(Protocol):
    """A scaling sets another scale of guidance on a pipeline, until it is removed."""

    def is_off(self, scale: float) -> bool:
        """Return whether the pipeline would have no guidance at this scale."""

    def set(self, scale: float | None) -> None:
        """Use this scale from the next step on; None: the loop's own."""

    def step_end(self) -> None:
        """Note that a step has ended. Raises UnsupportedPipelineError if it was not as expected."""

    def remove(self) -> None:
        """Put the pipeline back as it was. Idempotent."""


class Guidance:
    """``Guidance`` says how classifier-free guidance works on one pipeline: ``target.guidance``.

    Args:
        pipeline: the pipeline.
        known: unicb's facts about its class; None if there are none.
        offered: names of the tensors that its loop hands over at the end of a step.
    """

    def __init__(self, pipeline: Any, known: PipelineFacts | None, offered: Sequence[str]) -> None:
        self._pipeline, self._known, self._offered = pipeline, known, offered
        #: True if a run has to observe its first guided step before guidance is changed.
        self.is_to_be_seen = False

    @property
    def facts(self) -> PipelineFacts:
        """Return how guidance works here, from unicb's facts about the class or from the class's
        code.

        Raises:
            UnsupportedPipelineError: neither of them says.
        """
        return known_or_read(self._pipeline, self._known)

    def check_cut(self) -> None:
        """Raise UnsupportedPipelineError if guidance cannot be cut on this pipeline."""
        check(self._pipeline, self._known, self._offered)
        denoisers = [getattr(self._pipeline, name, None) for name in self.facts.denoisers]
        check_halves_are_together(type(self._pipeline).__name__, denoisers)
        self._note()

    def check_scale(self) -> PipelineFacts:
        """Raise UnsupportedPipelineError if the scale of guidance cannot be changed; return the
        facts."""
        facts = check_scaling(self._pipeline, self._known, self._offered)
        self._note()
        return facts

    def check_rule(self) -> None:
        """Raise UnsupportedPipelineError if a rule cannot replace the loop's combination."""
        facts = facts_of(self._pipeline, self._known, RULE_AIM)
        if facts.cfg == "batch" and facts.batch_of not in self._offered:
            raise UnsupportedPipelineError(without_latents(self._pipeline, facts, RULE_AIM))
        if facts.cfg == "guider":
            from unicb.guidance._guider_rule import check as check_guider_rule

            models = Models(backend_for(self._pipeline), self._pipeline, facts, None, RULE_AIM)
            check_guider_rule(models)
            return
        check_rule(self._pipeline, facts)
        self._note()

    def _note(self) -> None:
        facts = self.facts
        self.is_to_be_seen = facts.verify and facts.cfg in ("batch", "calls")


def known_or_read(pipeline: Any, known: PipelineFacts | None) -> PipelineFacts:
    """Return how guidance works on this pipeline; for a modular one, ``known`` was read from its
    blocks."""
    if known is not None and blocks_of(pipeline) is not None:
        return known
    return facts_of_class(type(pipeline), known)


def facts_of(
    pipeline: Any, known: PipelineFacts | None, aim: str = "cut guidance"
) -> PipelineFacts:
    """Return how guidance works on this pipeline: ``known``, or facts read from its class's code.

    Raises:
        UnsupportedPipelineError: the class has no classifier-free guidance, or unicb does not know
            how it works.
    """
    facts = known_or_read(pipeline, known)
    name = type(pipeline).__name__
    if facts.cfg == "none":
        raise UnsupportedPipelineError(f"cannot {aim} on {name}: it {facts.why_none}")
    guider = type(getattr(pipeline, "guider", None)).__name__
    if facts.guiders and guider not in facts.guiders:
        raise UnsupportedPipelineError(
            f"cannot {aim} on this {name}: its guider is a {guider}, whose calls are not "
            f"those of {' or '.join(facts.guiders)}"
        )
    return facts


def check(pipeline: Any, known: PipelineFacts | None, offered: Sequence[str]) -> None:
    """Raise UnsupportedPipelineError if guidance cannot be cut on this pipeline.

    Checks what can be checked before a run: that the models exist and can be hooked.
    """
    facts = facts_of(pipeline, known)
    if facts.cfg == "batch" and facts.batch_of not in offered:
        raise UnsupportedPipelineError(without_latents(pipeline, facts, "cut guidance"))
    models = Models(backend_for(pipeline), pipeline, facts, None)
    models.refuse_caching()
    if facts.cfg == "guider":
        check_guiders(models)
    if facts.cfg == "batch":
        models.check_rows()
    try:
        if facts.cfg != "switch":
            models.hook(lambda name, call, args, kwargs: call(*args, **kwargs))
            models.reset_caches(rehearse=True)  # forgets nothing: a run may be under way
    finally:
        models.remove()


def cut(
    backend: Backend,
    pipeline: Any,
    known: PipelineFacts | None,
    latents: Tensor | None,
    run: Run,
    seen: SeenFacts | None = None,
    within: bool = False,
) -> Cut | None:
    """Cut guidance from the next step on; None if this run's guidance is known to be off.

    Args:
        latents: the tensor named by the facts' ``batch_of``; not needed for ``cfg="calls"`` and
            ``cfg="switch"``. None if the run has no such tensor, which means no guidance.
        run: the run whose calls are cut; calls of other runs are not changed.
        seen: what the run's steps have shown so far; this may add to it.
        within: True if the first step has begun, and is calling a model for the first time.
    """
    seen = seen or SeenFacts()
    facts = seen.facts or facts_of(pipeline, known)
    models = Models(backend, pipeline, facts, run)
    models.refuse_caching()  # caching may have been enabled since bind
    if facts.cfg == "switch":
        return SwitchCut.of(models)
    if facts.cfg == "guider":
        return None if is_off(pipeline, known, run) else GuiderCut(models, run)
    if facts.cfg == "calls":
        return UnprovenCut(models, run, CallsCut, seen) if facts.verify else CallsCut(models)
    if latents is None and within:
        raise UnsupportedPipelineError(without_latents(pipeline, facts, "cut guidance"))
    if latents is None or (
        # Two blocks in a run without guidance are the conditional and the perturbed one.
        "perturbed" in facts.order and not guides(pipeline, run)
    ):
        return None
    models.check_rows()  # the model may have been replaced since bind
    if not facts.verify:
        return BatchCut(models, latents)
    return UnprovenCut(models, run, lambda models: BatchCut(models, latents), seen)


def is_off(pipeline: Any, known: PipelineFacts | None, run: Run) -> bool:
    """Return True if the pipeline was called without guidance, as far as is known before the end of
    the first step."""
    facts = facts_of(pipeline, known)
    if facts.cfg == "guider":
        found = guiders_of(pipeline, facts.guided_by)
        return not any(is_on(guider, run.num_timesteps) for guider in found)
    unnamed = facts.verify and facts.combination == "other"  # which names no scale either
    if unnamed or (facts.guidance_scale == "property" and run.target.block_step is None):
        return not getattr(pipeline, "do_classifier_free_guidance", True)
    # If the scale is a local variable, the flag often is one, too, and the property means nothing.
    scale = scale_of(pipeline, facts, run)
    return scale is not None and scale <= facts.guided_above


def check_scaling(
    pipeline: Any, known: PipelineFacts | None, offered: Sequence[str] | None = None
) -> PipelineFacts:
    """Raise UnsupportedPipelineError if the scale of the pipeline's guidance cannot be changed.
    ``offered`` has the names of the tensors that its loop hands over; None in a run, which has
    them."""
    facts = facts_of(pipeline, known, AIM)
    models = Models(backend_for(pipeline), pipeline, facts, None, AIM)
    if facts.cfg == "guider":
        check_guider_scale(models)
        return facts
    if read_at_each_step(facts):
        return facts
    check_form(models, "its loop keeps a copy of its scale, and")
    if offered is not None and facts.cfg == "batch" and facts.batch_of not in offered:
        raise UnsupportedPipelineError(without_latents(pipeline, facts, AIM))
    return facts


def scaling(
    backend: Backend,
    pipeline: Any,
    known: PipelineFacts | None,
    latents: Tensor | None,
    run: Run,
    seen: SeenFacts | None = None,
) -> Scaling:
    """Return an object that sets the scale of a run's guidance.

    Args:
        latents: as for :func:`cut`.
        run: the run whose calls are changed; calls of other runs are not.
        seen: what the run's steps have shown so far; this may add to it.

    Raises:
        UnsupportedPipelineError: as from :func:`check_scaling`; or this run has no guidance, or its
            loop sets the scale itself.
    """
    seen = seen or SeenFacts()
    facts = seen.facts or check_scaling(pipeline, known)
    check_called(pipeline, known, facts, run, AIM)
    unproven = facts_of(pipeline, known, AIM).verify
    models = Models(backend, pipeline, facts, run, AIM)
    if facts.cfg == "guider":
        return GuiderScale(models, run)
    if read_at_each_step(facts):
        by_attribute = PropertyScale(models)
        return UnprovenProperty(models, run, by_attribute) if unproven else by_attribute
    if facts.cfg == "batch" and latents is None:
        raise UnsupportedPipelineError(without_latents(pipeline, facts, AIM))

    def make(models: Models) -> Scaling:
        return MovedScale(models, run, latents if facts.cfg == "batch" else None)

    if seen.wrong_scale is not None:
        models.mismatch(*seen.wrong_scale)
    return UnprovenScale(models, run, make, seen) if facts.verify else make(models)


def check_called(
    pipeline: Any, known: PipelineFacts | None, facts: PipelineFacts, run: Run, aim: str
) -> None:
    """Raise UnsupportedPipelineError if the arguments of the run's call prevent ``aim``."""
    if facts.scale_set_if and run.loop_locals([facts.scale_set_if]).get(facts.scale_set_if):
        raise UnsupportedPipelineError(
            f"cannot {aim} in this run: {type(pipeline).__name__} was called with "
            f"{facts.scale_set_if}, and sets the scale itself at each step; call it without"
        )
    if facts.cfg == "guider" and is_off(pipeline, known, run):
        raise UnsupportedPipelineError(
            f"cannot {aim} in this run: no guider of this {type(pipeline).__name__} guides any of "
            "its steps; give it a guidance_scale, as in pipeline.update_components(guider=...)"
        )
    if is_off(pipeline, known, run):
        raise without_guidance(pipeline, facts, scale_of(pipeline, facts, run), aim)


def without_latents(pipeline: Any, facts: PipelineFacts, aim: str) -> str:
    return (
        f"cannot {aim} on {type(pipeline).__name__}: its batch is counted by the rows of "
        f"{facts.batch_of!r}, which it does not offer to callbacks, or not yet"
    )
