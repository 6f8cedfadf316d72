"""Set a guidance rule on a loop that unicb was not proven on, after observing a guided step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unicb.guidance._models import Models
from unicb.guidance._rule import RuleMoves, Ruling
from unicb.guidance._unproven import Look, SecondLook, SeenFacts, remade_by
from unicb.guidance._watch import Seen
from unicb.ops import Tensor

if TYPE_CHECKING:
    from unicb.run.run import Run


class UnprovenRuling(Look):
    """Set the rule once a guided step was observed.

    Args:
        models: the pipeline's models.
        run: the run of the loop.
        make: makes the rule's changes, for models with the facts as observed.
        latents: the tensor whose rows count the batch; None if guidance takes several calls a step.
        is_cut: returns whether guidance is cut at the moment.
        seen: what the run's steps have shown so far; this may add to it.
    """

    def __init__(
        self,
        models: Models,
        run: Run,
        make: Callable[[Models], RuleMoves],
        latents: Tensor | None,
        is_cut: Callable[[], bool],
        seen: SeenFacts,
    ) -> None:
        super().__init__(models, run, seen)
        self._make, self._latents, self._is_cut = make, latents, is_cut
        self._moves: RuleMoves | None = None
        self._ruling: Ruling | None = None
        self._again: Look | None = None

    def _is_due(self) -> bool:
        return super()._is_due() or not self._is_cut()

    def _see(self, seen: Seen) -> Tensor | None:
        super()._see(seen)
        if self._seen.wrong_scale is not None:
            self._models.mismatch(*self._seen.wrong_scale)
        if self._is_cut():
            return None
        self._seen.is_to_be_seen_again = True
        # With several windows in a step, each window is a part of its own for the rule.
        self._moves = self._moves or self._make(self._known())
        return remade_by(self._models, seen, self._known().facts, self._moves.combined)

    def step_end(self) -> None:
        if self._again is not None:
            self._again.step_end()
        if self._ruling is not None:
            return self._ruling.step_end()
        super().step_end()
        if self._seen.facts is not None:
            models = self._known()
            self._moves = self._moves or self._make(models)
            self._moves.step_end()
            self._ruling = Ruling(models, self._moves, self._latents)
            if self._seen.is_to_be_seen_again:  # hooked outside, it sees what the loop sees
                self._again = SecondLook(self._known(), self._run, self._seen)

    def remove(self) -> None:
        super().remove()
        for made in (self._again, self._ruling):
            if made is not None:
                made.remove()
