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
    """A rule step is the denoising step that is being computed, as handed to
    :meth:`unicb.GuidanceRule.combine`.

    Attributes:
        run: the run that the step belongs to.
        ops: the seven tensor operations of the pipeline's framework.
        index: the step's number, from 0. A scheduler of order 2 counts its half steps, too.
        num_timesteps: number of steps of the run.
        part: index, from 0, of the tensor that is combined, among those that the denoiser predicts
            in this step. With some models the video is part 0 and its sound part 1; if the denoiser
            is called for several windows of a video, the count goes on.
        guidance_scale: the scale with which the pipeline itself would guide this part, in the
            convention ``u + scale * (c - u)``: a number, or a tensor if each frame has its own.
        has_own_scale: True if the call gives this part, such as a video's sound, a scale of its
            own.

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
        """Return the share of the steps done before this one, in 0..1; both half steps of a step
        have the same."""
        scheduler = getattr(self.run.pipeline, "scheduler", None)
        is_second = not getattr(scheduler, "state_in_first_order", True)
        return (self.index - is_second) / self.num_timesteps

    @property
    def timestep(self) -> float:
        """Return the scheduler's timestep. Reading it from a device tensor waits for the device.

        Raises:
            LookupError: the loop has no local variable ``t``, as diffusers' loops call the
                timestep.
        """
        found = self.run.loop_locals(["t"]).get("t")
        if found is None:
            raise LookupError(f"the loop of {type(self.run.pipeline).__name__} has no timestep t")
        return timestep_number(found, self.ops)

    def state(self, rule: Callback, make: Callable[[], T]) -> T:
        """Return the value that ``rule`` keeps for this part of the prediction from step to step.
        It is made by ``make()`` in the first step of each run and of each pass over the timesteps,
        and when the prediction's shape changes, as when a loop drops frames."""
        # A key of its own, apart from the rule's own run.state(rule, ...).
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
        self.run.on_finish(kept.values.clear)  # somebody may keep the run object
        return kept


class _Kept:
    """Hold the values that a rule keeps in one pass of a run."""

    def __init__(self) -> None:
        self.step, self.index_in_pass = -1, -1
        #: By the index of the part: the prediction's shape, and the value.
        self.values: dict[int, tuple[tuple[int, ...], object]] = {}


#: A function ``combine(unconditional, conditional, step)`` that returns the combined prediction.
Combine: TypeAlias = Callable[[Tensor, Tensor, RuleStep], Tensor]
