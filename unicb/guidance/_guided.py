"""Cut the guidance of one run, restore it, and change its scale."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from unicb.errors import UnicbError, UnsupportedPipelineError
from unicb.guidance import Cut, Scaling, cut, is_off, scaling
from unicb.guidance._attributes import Ours, put_back
from unicb.guidance._guider_rule import GuiderRuling
from unicb.guidance._models import Models
from unicb.guidance._rule import Ruling
from unicb.guidance._ruling import ruling
from unicb.guidance._unproven import Look, SecondLook, SeenFacts
from unicb.guidance.rule_step import Combine
from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts

if TYPE_CHECKING:
    from unicb.pipelines.target import Target
    from unicb.run.run import Run

log = logging.getLogger("unicb")

_ATTRIBUTE = "_guidance_scale"


class RunGuidance:
    """``RunGuidance`` makes one run's changes to its pipeline's guidance.

    Args:
        target: the pipeline with unicb's facts about it.
        owner: the run.
    """

    def __init__(self, target: Target, owner: Run) -> None:
        self._backend = target.backend
        facts = target.facts
        self._pipeline, self._facts = target.pipeline, facts
        self._owner = owner
        self._batch_of = "latents" if facts is None else facts.batch_of
        self._cut: Cut | None = None
        self._scaling: Scaling | None = None
        self._ruling: Ruling | GuiderRuling | Look | None = None
        self._set: dict[str, Ours] = {}
        self._scale_after_cut: float | None = None
        self._target = target
        self._seen = SeenFacts()
        self._look: Look | None = None

    def look_on(self) -> None:
        """Observe the first step with guidance, if it is not proven how the loop guides."""
        guidance = self._target.guidance
        if guidance.is_to_be_seen and self._seen.facts is None:
            self._start(Look(self._models(guidance.facts), self._owner, self._seen))

    def _models(self, facts: PipelineFacts) -> Models:
        return Models(self._backend, self._pipeline, facts, self._owner)

    def _start(self, look: Look) -> None:
        self._look = look
        self._owner.on_finish(look.remove)
        self._owner.watch_steps(self._step_end)

    def _step_end(self, handed: Mapping[str, Tensor]) -> None:
        """Raise UnsupportedPipelineError if the step that has ended was not as expected."""
        if self._look is not None:
            self._look.step_end()
        if self._cut is not None:
            self._cut.step_end()
            self._owner.record.rows.step_end()
        for made in (self._scaling, self._ruling):
            if made is not None:
                made.step_end()

    def counted(self) -> dict[str, Tensor]:
        """Return the loop's local variable that has one row for each picture, by its name, before
        the first step has ended; an empty dict if it is not found."""
        before = "" if self._facts is None else self._facts.batch_before
        scheduled = self._target.scheduled
        names = [self._batch_of, before] if scheduled is None else [scheduled.latents]
        found = self._owner.loop_locals(names)
        rows = next((x for x in found.values() if self._backend.is_tensor(x)), None)
        if rows is not None and scheduled is not None:
            rows = rows[: scheduled.own_rows(rows, self._owner.loop_locals)]
        return {} if rows is None else {self._batch_of: rows}

    def is_off(self) -> bool:
        """Return True if the pipeline was called without guidance, as far as is known by this
        step."""
        return is_off(self._pipeline, self._facts, self._owner)

    def set_scale_attribute(self, value: float) -> None:
        """Set the pipeline's ``guidance_scale`` to the end of the run."""
        name = type(self._pipeline).__name__
        if not hasattr(self._pipeline, _ATTRIBUTE):
            raise UnsupportedPipelineError(f"{name} has no guidance_scale to set")
        if self._facts is not None and self._facts.guidance_scale == "local":
            raise UnsupportedPipelineError(
                f"{name} reads its guidance scale once, before the loop: a new value would "
                "change nothing"
            )
        if self._cut is not None and self._cut.holds_scale:
            self._scale_after_cut = value  # for now, the loop has to read that guidance is off
            return
        if not self._set:
            before = getattr(self._pipeline, _ATTRIBUTE)
            put = self._pipeline, _ATTRIBUTE, before, self._set
            self._owner.on_finish(lambda: put_back(*put))
        self._set[_ATTRIBUTE] = Ours(value)
        setattr(self._pipeline, _ATTRIBUTE, self._set[_ATTRIBUTE])

    def cut(self, tensors: Mapping[str, Tensor]) -> bool:
        """Leave out the unconditional half. Returns False if it is left out already, or guidance is
        off.

        Args:
            tensors: the tensors that the loop has handed over, by name.
        """
        if self._cut is not None:
            return False
        first = self._owner.index < 0
        if first and self.is_off():
            return False
        rows = tensors.get(self._batch_of)
        about = self._backend, self._pipeline, self._facts, rows, self._owner, self._seen
        made = cut(*about, within=first)
        if made is None:
            return False
        self._owner.on_finish(made.remove)
        self._cut = made
        self._owner.record.cut(self._owner.index)
        self._owner.watch_steps(self._step_end)
        return True

    def restore(self) -> bool:
        """Undo :meth:`cut`. Returns False if nothing was left out."""
        if self._cut is None:
            return False
        made, self._cut = self._cut, None
        made.restore()
        self._owner.record.restored(self._owner.index)
        if self._seen.is_to_be_seen_again and self._seen.facts is not None:
            self._seen.is_to_be_seen_again = False
            models = self._models(self._seen.facts)
            self._start(SecondLook(models, self._owner, self._seen))
        after, self._scale_after_cut = self._scale_after_cut, None
        if after is not None:
            self.set_scale_attribute(after)
        return True

    def combine_by(self, combine: Combine, tensors: Mapping[str, Tensor]) -> None:
        """Let this rule replace the loop's combination; ``tensors`` as for :meth:`cut`."""
        self._refuse_second_decision()
        rows = tensors.get(self._batch_of)
        about = self._backend, self._pipeline, self._facts, rows, self._owner
        made = ruling(*about, combine, lambda: self._cut is not None, self._seen)
        self._owner.on_finish(made.remove)
        self._ruling = made
        self._log("a rule combines", self._owner.index)
        self._owner.watch_steps(self._step_end)

    def _log(self, what: str, after_step: int) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: guidance: %s, after step %d", self._target.name, what, after_step)

    def _refuse_second_decision(self) -> None:
        if self._ruling is not None or self._scaling is not None:
            raise UnicbError(
                "a run's guidance has one rule or a scale that is set, not two of these: what "
                "guidance a rule has is what its scale= says"
            )

    def set(self, scale: float, tensors: Mapping[str, Tensor]) -> None:
        """Set the scale of guidance; ``tensors`` as for :meth:`cut`."""
        if self._scaling is None:
            self._refuse_second_decision()
            # Fine while guidance is cut, too: a scaling does not change a block that is alone.
            rows = tensors.get(self._batch_of)
            about = self._backend, self._pipeline, self._facts, rows, self._owner, self._seen
            made = scaling(*about)
            self._owner.on_finish(made.remove)
            self._scaling = made
            self._log("the scale is set", self._owner.index)
            self._owner.watch_steps(self._step_end)
        if self._scaling.is_off(scale):
            self._scaling.set(None)
            self.cut(tensors)
        else:
            self.restore()
            self._scaling.set(scale)
