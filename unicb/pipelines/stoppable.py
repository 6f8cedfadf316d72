"""Tell whether a pipeline's run can be ended early, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unicb.errors import UnsupportedPipelineError
from unicb.pipelines.facts import PipelineFacts
from unicb.pipelines.source import CallSource


def reads_flag(kind: type) -> bool:
    """Return whether the code of a pipeline class's loop reads the interrupt flag."""
    return CallSource.of(kind).reads_flag


def stops_by_flag(pipeline: Any) -> bool:
    """Return whether the interrupt flag ends a run with the latents of the step after which it is
    set.

    With FreeInit it does not: a call has several passes, and each begins with new noise before it
    reads the flag.
    """
    return reads_flag(type(pipeline)) and not getattr(pipeline, "free_init_enabled", False)


def check_stoppable(pipeline: Any, models: Sequence[Any], facts: PipelineFacts | None) -> None:
    """Raise UnsupportedPipelineError if a run of the pipeline, whose loop calls these models,
    cannot be ended early."""
    if facts is not None and facts.unstoppable:
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} cannot be interrupted: it {facts.unstoppable}. cancel() "
            "ends it, without a picture"
        )
    if stops_by_flag(pipeline) or models:
        return
    raise UnsupportedPipelineError(
        f"{type(pipeline).__name__} cannot be interrupted: its loop reads no interrupt flag, and "
        "which models it calls is not known. cancel() ends it, without a picture; `unicb_facts` on "
        "the class says what its denoisers are (see unicb.PipelineFacts)"
    )


def models_of(pipeline: Any, facts: PipelineFacts | None) -> list[Any]:
    """List the pipeline's denoisers, then their companions; empty if it has no denoiser."""
    if facts is None:
        return []
    denoisers = [getattr(pipeline, name, None) for name in facts.denoisers]
    companions = [getattr(pipeline, name, None) for name in facts.companions]
    if all(model is None for model in denoisers):
        return []
    return [model for model in (*denoisers, *companions) if model is not None]
