"""How classifier-free guidance (CFG) is cut on a pipeline.

With CFG on, a pipeline's loop computes an unconditional prediction beside the conditional one and
combines them as ``u + g * (c - u)``. Some do so in one call of the denoiser on a batch of several
blocks of rows, some in several calls a step. Callbacks cannot reach all that this takes: much of
it is in locals of the loop. But all of it passes through the denoiser's call.

So there the unconditional part is left out, and the conditional one answers in its place: the loop
then combines ``u = c``, which is ``c`` exactly, and half of the work is gone. Where the loop reads
at each step whether guidance is on, it is enough to switch it off.
"""

from __future__ import annotations

from typing import Any, Protocol

from unicb.backend import Backend, backend_for
from unicb.errors import UnsupportedPipelineError
from unicb.guidance._batch import BatchCut
from unicb.guidance._calls import CallsCut
from unicb.guidance._inference import facts_of_class
from unicb.guidance._models import Models, WatchedRun
from unicb.guidance._switch import SwitchCut
from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts

__all__ = ["Cut", "check", "cut", "facts_of"]


class Cut(Protocol):
    """Guidance cut on a pipeline, until removed.

    Attributes:
        holds_scale: whether it is the guidance scale that keeps guidance off.
    """

    holds_scale: bool

    def step_end(self) -> None:
        """A step has ended. Raises UnsupportedPipelineError if it was not as expected."""

    def remove(self) -> None:
        """Put the pipeline back as it was. Idempotent."""


def facts_of(pipeline: Any, known: PipelineFacts | None) -> PipelineFacts:
    """How guidance works on this pipeline: ``known``, or what its class's own code tells.

    Raises:
        UnsupportedPipelineError: the class has no CFG, or how it works cannot be told.
    """
    facts = facts_of_class(type(pipeline), known)
    name = type(pipeline).__name__
    if facts.cfg == "none":
        raise UnsupportedPipelineError(f"cannot cut guidance on {name}: it {facts.why_none}")
    guider = type(getattr(pipeline, "guider", None)).__name__
    if facts.guiders and guider not in facts.guiders:
        raise UnsupportedPipelineError(
            f"cannot cut guidance on this {name}: its guider is a {guider}, whose calls are not "
            f"those of {' or '.join(facts.guiders)}"
        )
    return facts


def check(pipeline: Any, known: PipelineFacts | None) -> None:
    """Raise UnsupportedPipelineError if guidance cannot be cut on this pipeline.

    Rehearses what can be rehearsed before a run: that the models are there and can be hooked.
    """
    facts = facts_of(pipeline, known)
    if facts.cfg == "batch" and facts.batch_of not in pipeline._callback_tensor_inputs:
        raise UnsupportedPipelineError(
            f"cannot cut guidance on {type(pipeline).__name__}: its batch is counted by the rows "
            f"of {facts.batch_of!r}, which it does not offer to callbacks"
        )
    models = Models(backend_for(pipeline), pipeline, facts, None)
    try:
        if facts.cfg != "switch":
            models.hook(lambda name, call, args, kwargs: call(*args, **kwargs))
            models.reset_caches(rehearse=True)  # a run may be under way
    finally:
        models.remove()


def cut(
    backend: Backend,
    pipeline: Any,
    known: PipelineFacts | None,
    latents: Tensor | None,
    run: WatchedRun,
) -> Cut | None:
    """Cut guidance from the next step on; None if this run's guidance is known to be off.

    Args:
        latents: the tensor that the facts call ``batch_of``; not needed for ``cfg="calls"`` and
            ``cfg="switch"``. None where the run has none, which is one without guidance.
        run: whose calls are to be cut; those of others pass untouched.
    """
    facts = facts_of(pipeline, known)
    models = Models(backend, pipeline, facts, run)
    if facts.cfg == "switch":
        return SwitchCut.of(models)
    if facts.cfg == "calls":
        return CallsCut(models)
    if latents is None or (
        # Without guidance, two blocks are the conditional one and the perturbed one.
        "perturbed" in facts.order and not pipeline.do_classifier_free_guidance
    ):
        return None
    return BatchCut(models, latents)
