"""Compute the denoised latents of a run's steps on request."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from unicb.latents.denoised import DenoisedEstimate, LazyDenoised
from unicb.ops import Tensor
from unicb.pipelines.in_place import writes_into_latents
from unicb.step import DenoisedKind, Picture

if TYPE_CHECKING:
    from unicb.pipelines._around_step import AroundStep
    from unicb.run.run import Run

#: Names of local variables with further arguments that loops hand to ``scheduler.step``.
_STEP_ARGUMENTS = ("extra_step_kwargs", "eta")


class RunDenoised:
    """``RunDenoised`` estimates the finished latents (x0) from each step of one run.

    An error in the estimate does not fail the run: it is raised to the caller that asks for it.

    Attributes:
        kind: how good the run's estimates are.
        started_from: the latents with which the current step began, as the callbacks have left
            them; None if not known.
        picture: what is decoded if the run is interrupted.
    """

    def __init__(self, run: Run) -> None:
        self.kind: DenoisedKind = "none"
        self.started_from: Tensor | None = None
        self.picture: Picture = "denoised"
        self._run = run
        self._handed_back: Tensor | None = None
        #: True if the loop writes its latents in place in each step.
        self._in_place = False
        self._estimate: DenoisedEstimate | None = None
        self._error: Exception | None = None

    def begin(self, timestep: Any, num_timesteps: int) -> bool:
        """Begin when the first step of the run has ended, at this timestep. Returns whether each
        step has to be noted."""
        run = self._run
        try:
            self._in_place = writes_into_latents(type(run.pipeline))
            scheduler = getattr(run.pipeline, "scheduler", None)
            given = run.target.step_arguments
            if given is None:
                given = _step_arguments(run.loop_locals(_STEP_ARGUMENTS))
            kind = DenoisedEstimate.kind_of(scheduler, given)
            if kind is not None:
                self._estimate = DenoisedEstimate(
                    scheduler,
                    run.ops,
                    first_timestep=timestep,
                    num_timesteps=num_timesteps,
                    step_arguments=given,
                    as_latents=self._as_latents(),
                )
                self._estimate.see_schedule(-1)
                self.kind = "estimate" if self._blends_in_an_unknown() else kind
                return self._estimate.needs_notes
        except Exception as error:
            self._fail(error)
        return False

    def _as_latents(self) -> Callable[[Tensor], Tensor] | None:
        around = self._around
        if around is None or not around.reshapes:
            return None
        return functools.partial(around.kept, loop_locals=self._run.loop_locals)

    def _blends_in_an_unknown(self) -> bool:
        """Return whether the loop blends a picture into its latents that the facts do not name."""
        facts, around = self._run.target.facts, self._around
        known = facts is not None and facts.known_region
        return around is not None and not around.reshapes and not known

    @property
    def _around(self) -> AroundStep | None:
        scheduled = self._run.target.scheduled
        return None if scheduled is None else scheduled.around

    def begin_pass(self) -> None:
        """Forget the latents of the step before: it is not known with which latents a pass
        begins."""
        self.started_from = self._handed_back = None

    def goes_on_with(self, latents: Tensor | None) -> None:
        """Note the latents with which the loop begins its next step; if it writes them in place,
        keep a copy."""
        self._handed_back = self.started_from = latents
        if self._in_place and self._estimate is not None and latents is not None:
            self.started_from = latents * 1.0

    def see(self, latents: Tensor | None) -> None:
        """Find out, from the latents handed over at a step's end, whether the loop writes them in
        place."""
        if not self._in_place and latents is not None and latents is self._handed_back:
            self._in_place = True
            self.started_from = None  # the tensor was overwritten

    def note(self, handed: Mapping[str, Tensor]) -> None:
        """Note the tensors handed over at the end of a step."""
        latents = handed.get("latents")
        if self._estimate is not None and latents is not None:
            try:
                self._estimate.goes_on_with(self.started_from)
                self._estimate.note(latents)
            except Exception as error:
                self._fail(error)

    def lazy(self, latents: Tensor | None) -> LazyDenoised | None:
        """Return what can be computed of the step that has ended; None where there is nothing.

        Where the loop inpaints, the known region is the given picture's.

        Args:
            latents: the latents as the loop has handed them over.

        Raises:
            Exception: the error of the estimate.
        """
        if self._error is not None:
            raise self._error
        estimate = self._estimate
        if estimate is None or latents is None:
            return None
        if estimate.needs_notes:
            lazy = estimate.lazy()
        else:
            index = self._run.index_in_pass
            lazy = estimate.between(self.started_from, latents, index)
        # x0 from two latents includes the known region, unless that is clean from the first step
        # on.
        is_clean = self._around is not None and not self._around.reshapes
        if lazy is None or not (estimate.is_from_kept or is_clean):
            return lazy
        facts = self._run.target.facts
        if facts is None or not facts.known_region:
            return lazy
        # The loop puts the known region back into the latents; the model's x0 only guesses it.
        found = self._run.loop_locals(facts.known_region)
        mask, known = (found.get(name) for name in facts.known_region)
        if not (self._run.is_tensor(mask) and self._run.is_tensor(known)):
            return lazy
        return lazy.with_known(known, mask)

    def compute(self, latents: Tensor | None) -> Tensor | None:
        """Compute the denoised latents of :meth:`lazy`, in the latents' dtype."""
        lazy = self.lazy(latents)
        x0 = None if lazy is None else lazy.compute(*lazy.tensors)
        if x0 is None or latents is None or x0.dtype == latents.dtype:
            return x0
        ops = self._run.ops
        return ops.from_numpy(ops.to_numpy(x0), latents)

    def put_into(self, outputs: dict[str, Tensor], handed: Mapping[str, Tensor]) -> None:
        """Make the loop go on with the denoised latents, if they can be computed.

        Args:
            outputs: the tensors that go back into the loop, by name; changed here.
            handed: the tensors that the loop has handed over, by name.
        """
        latents = handed.get("latents")
        try:
            x0 = self.compute(latents)
        except Exception as error:
            message = (
                "the picture of an interrupted run is of the latents as they are, since the "
                f"denoised ones could not be computed: {type(error).__name__}: {error}"
            )
            self._run.record.warned(message)
            warnings.warn(message, RuntimeWarning, stacklevel=5)
            return
        if x0 is not None:
            outputs["latents"] = x0

    def forget(self) -> None:
        """Forget all tensors: the run is over."""
        # The error's traceback keeps frames and their tensors alive.
        self._estimate = self._error = self.started_from = self._handed_back = None

    def _fail(self, error: Exception) -> None:
        self.kind, self._estimate, self._error = "none", None, error


def _step_arguments(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the further arguments that the loop hands to ``scheduler.step``, from its local
    variables."""
    given = found.get("extra_step_kwargs")
    return given if isinstance(given, Mapping) else found
