"""Describe to a guidance rule the step whose predictions it combines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from unicb._states import States
from unicb.ops import Tensor
from unicb.step import timestep_number

if TYPE_CHECKING:
    from unicb.callback import Callback
    from unicb.run.run import Run

T = TypeVar("T")
_OF_STEPS: Any = object()


class RuleStep:
    """A rule step is a denoising step that is being computed, as handed to
    :meth:`unicb.GuidanceRule.combine`.

    Attributes:
        run: the run that it is a step of.
        ops: the seven tensor operations of the pipeline's framework.
        index: the step's number, from 0. A scheduler of order 2 counts its half steps too.
        num_timesteps: how many there are.
        part: which of the tensors that the denoiser predicts in this step is combined, from 0: with
            some models the video comes first and its sound second, and where the denoiser is
            called for several windows of a video, they count on.
        guidance_scale: what the pipeline guides this part with by itself, in the convention
            ``u + scale * (c - u)``: a number, or a tensor where each frame has its own.
        has_own_scale: whether the call has given this part, such as a video's sound, another scale
            than the guidance scale.

    Example:
        >>> class Early(GuidanceRule):
        ...     def combine(self, unconditional, conditional, scale, step):
        ...         if step.index > step.num_timesteps // 2:
        ...             return conditional
        ...         return unconditional + (conditional - unconditional) * scale
        >>> image = bind(pipe, Early())("a red star")[0]
    """

    __slots__ = (
        *("_shape", "guidance_scale", "has_own_scale", "index"),
        *("num_timesteps", "ops", "part", "run"),
    )

    def __init__(
        self,
        run: Run,
        num_timesteps: int,
        part: int,
        shape: tuple[int, ...],
        guidance_scale: float | Tensor,
        has_own_scale: bool,
    ) -> None:
        self.run, self.ops = run, run.ops
        self.index, self.num_timesteps = run.index + 1, num_timesteps
        self.part, self._shape, self.guidance_scale = part, shape, guidance_scale
        self.has_own_scale = has_own_scale

    @property
    def progress(self) -> float:
        """Return the share of the steps that are done before this one, in 0..1; of two half steps,
        before the first."""
        scheduler = getattr(self.run.pipeline, "scheduler", None)
        is_second = not getattr(scheduler, "state_in_first_order", True)
        return (self.index - is_second) / self.num_timesteps

    @property
    def timestep(self) -> float:
        """Return the scheduler's timestep. Reading it from a device tensor waits for the device.

        Raises:
            LookupError: the loop does not call it ``t``, as diffusers' loops do.
        """
        found = self.run.loop_locals(["t"]).get("t")
        if found is None:
            raise LookupError(f"the loop of {type(self.run.pipeline).__name__} has no timestep t")
        return timestep_number(found, self.ops)

    def state(self, rule: Callback, make: Callable[[], T]) -> T:
        """Return what ``rule`` keeps of this part of the prediction, from step to step; ``make``
        gives it in the first step of each pass over the timesteps, of each run, and where the
        prediction has another shape than in the step before, as where a loop drops frames."""
        # Apart from what the rule keeps of the run itself, in run.state(rule, ...).
        kept = self.run.state(_OF_STEPS, States).of(rule, self._nothing_kept)
        if kept.step != self.index:
            found = self.run.loop_locals(["i"]).get("i")
            index_in_pass = found if isinstance(found, int) else self.index
            if index_in_pass <= kept.index_in_pass:
                kept.values.clear()
            kept.step, kept.index_in_pass = self.index, index_in_pass
        shape, value = kept.values.get(self.part, ((), None))
        if shape != self._shape:
            value = make()
            kept.values[self.part] = self._shape, value
        return cast(T, value)

    def _nothing_kept(self) -> _Kept:
        kept = _Kept()
        self.run.on_finish(kept.values.clear)  # somebody may keep the run
        return kept


class _Kept:
    """Hold what a rule keeps of one pass of a run."""

    def __init__(self) -> None:
        self.step, self.index_in_pass = -1, -1
        #: By parts of the prediction, each with its shape.
        self.values: dict[int, tuple[tuple[int, ...], object]] = {}


#: What is to be made of an unconditional and a conditional prediction.
Combine: TypeAlias = Callable[[Tensor, Tensor, RuleStep], Tensor]
