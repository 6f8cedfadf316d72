"""Check that a loop's combination can be turned into another by changing one of its parts."""

from __future__ import annotations

from unicb.errors import UnsupportedPipelineError
from unicb.guidance._models import Models
from unicb.guidance._scale import has_scale


def check_form(models: Models, loop: str = "its loop") -> None:
    """Raise UnsupportedPipelineError unless the loop is known to compute ``u + g * (c - u)`` or
    ``c + g * (c - u)``, its scale g can be found, and the models that predict can be hooked.

    Args:
        models: the pipeline's models, with the aim for the message.
        loop: the beginning of the message.
    """
    facts, cannot = models.facts, f"cannot {models.aim} on {models.name}"
    if facts.guiders:
        raise UnsupportedPipelineError(
            f"{cannot}: its guider combines the parts of its guidance, with scales of its own; set "
            "those, on pipeline.guider"
        )
    config = getattr(models.pipeline, "config", {})
    flag = facts.other_if and getattr(config, facts.other_if, False)
    if facts.combination == "other" or flag:
        reason = f" with {facts.other_if}" if flag else ""
        raise UnsupportedPipelineError(
            f"{cannot}: {loop} combines the parts of its guidance{reason} in a way that is not "
            f"known to be u + g * (c - u). Facts from: {facts.source}"
        )
    if not has_scale(type(models.pipeline), facts):
        raise UnsupportedPipelineError(
            f"{cannot}: its loop has no scale called {' or '.join(facts.scale_names)}. Facts from: "
            f"{facts.source}"
        )
    try:
        models.hook(lambda name, call, args, kwargs: call(*args, **kwargs))
    finally:
        models.remove()
