"""Set a guidance rule in a run: on a proven loop, or on a loop that is observed first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unicb.backend import Backend
from unicb.errors import UnsupportedPipelineError
from unicb.guidance import check_called, facts_of, without_latents
from unicb.guidance._guider_rule import GuiderRuling
from unicb.guidance._models import Models
from unicb.guidance._rule import AIM, RuleMoves, Ruling
from unicb.guidance._unproven import SeenFacts
from unicb.guidance._unproven_rule import UnprovenRuling
from unicb.guidance.rule_step import Combine
from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts

if TYPE_CHECKING:
    from unicb.run.run import Run


def ruling(
    backend: Backend,
    pipeline: Any,
    known: PipelineFacts | None,
    latents: Tensor | None,
    run: Run,
    combine: Combine,
    is_cut: Callable[[], bool],
    seen: SeenFacts,
) -> Ruling | UnprovenRuling | GuiderRuling:
    """Let a rule replace the loop's combination of a run's predictions.

    Args:
        latents: as for :func:`unicb.guidance.cut`.
        run: the run whose calls are changed; calls of other runs are not.
        combine: the rule.
        is_cut: returns whether guidance is cut at the moment.
        seen: what the run's steps have shown so far; this may add to it.

    Raises:
        UnsupportedPipelineError: this run has no guidance, or its loop sets the scale itself.
    """
    facts = seen.facts or facts_of(pipeline, known, AIM)
    check_called(pipeline, known, facts, run, AIM)
    models = Models(backend, pipeline, facts, run, AIM)
    if facts.cfg == "guider":
        return GuiderRuling(models, run, combine, is_cut)
    if facts.cfg == "batch" and latents is None:
        raise UnsupportedPipelineError(without_latents(pipeline, facts, AIM))
    rows = latents if facts.cfg == "batch" else None
    unproven = facts_of(pipeline, known, AIM).verify

    def moves(models: Models) -> RuleMoves:
        return RuleMoves(models, run, combine, is_cut, latents, sets_scale=not unproven)

    if facts.verify:
        return UnprovenRuling(models, run, moves, rows, is_cut, seen)
    return Ruling(models, moves(models), rows)
