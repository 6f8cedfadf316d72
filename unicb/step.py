"""Give a callback what it sees of a denoising step, and what it may do to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np

from unicb._guidance_controls import GuidanceControls
from unicb._step_tensors import check_replacement, undeclared
from unicb.ops import Tensor, TensorOps

if TYPE_CHECKING:
    from unicb.callback import Callback
    from unicb.latents.denoised import LazyDenoised
    from unicb.run.run import Run

#: How good an estimate of the denoised latents is: x0 to rounding; nearly; there is none.
DenoisedKind: TypeAlias = Literal["exact", "estimate", "none"]
#: What an interrupted run decodes: the denoised latents, or those that its loop has.
Picture: TypeAlias = Literal["denoised", "latents"]

T = TypeVar("T")


def timestep_number(timestep: Any, ops: TensorOps) -> float:
    """Return as a number what a loop hands over as its timestep: a number, or a tensor of one or
    more, of which it is the largest."""
    on_host = isinstance(timestep, int | float | np.ndarray | np.generic)
    return float(np.max(timestep if on_host else ops.to_numpy(timestep)))


class Step(GuidanceControls):
    """A step is the end of one denoising step, as handed to :meth:`unicb.Callback.on_step_end`.

    ``step[name]`` reads and writes the tensors that the callback declared in ``tensors``. What is
    written goes back into the pipeline's loop, and is what the next callback reads; what is not
    touched goes back as it came. A value may be None where the pipeline has nothing to offer
    (``negative_prompt_embeds`` with guidance off), or a list (``image`` with several ControlNets).

    Attributes:
        run: the run that it is a step of.
        index: the step's number, from 0; -1 before the first. A scheduler of order 2 counts its
            half steps too, as the frameworks do.
        num_timesteps: how many there are (``pipeline.num_timesteps``, or what the scheduler has).
        ops: the seven tensor operations of the pipeline's framework.

    Example:
        >>> class Tell(Callback):
        ...     tensors = ("latents",)
        ...     def on_step_end(self, step):
        ...         print(step.index, step.progress, step.guidance_scale, step["latents"].shape)
        >>> image = bind(pipe, Tell())("a red star", num_inference_steps=2)[0]
        0 0.5 5.0 (1, 4, 8, 8)
        1 1.0 5.0 (1, 4, 8, 8)
    """

    __slots__ = (
        *("_current", "_handed", "_tensors", "_timestep", "run"),
        *("index", "num_timesteps", "ops"),
    )

    def __init__(
        self,
        run: Run,
        index: int,
        num_timesteps: int,
        timestep: Any,
        tensors: dict[str, Tensor],
        handed: Mapping[str, Tensor],
    ) -> None:
        self.run = run
        self.ops: TensorOps = run.ops
        self.index = index
        self.num_timesteps = num_timesteps
        self._timestep = timestep
        # What goes back into the loop, and what it has handed over.
        self._tensors, self._handed = tensors, handed
        #: The callback that it is handed to, and the names of the tensors that this may read.
        self._current: tuple[Callback | None, Sequence[str]] = (None, ())

    @property
    def timestep(self) -> float:
        """Return the scheduler's timestep; the largest, where each frame of a video has its own.
        Reading it from a device tensor waits for the device.

        Raises:
            LookupError: before the first step.
        """
        if self.index < 0:
            raise LookupError("before the first step of a run, there is no timestep yet")
        return timestep_number(self._timestep, self.ops)

    @property
    def progress(self) -> float:
        """Return the share of the steps that are done, in 0..1; 1.0 at the end of the last."""
        return (self.index + 1) / self.num_timesteps

    @property
    def is_whole(self) -> bool:
        """Return whether a step of the scheduler is complete. A scheduler of order 2 (Heun, KDPM2)
        takes two half steps for each but the last, and the latents after the first half are its
        prediction, not yet corrected."""
        # diffusers' flag for which half comes next; schedulers of order 1 have none.
        scheduler = getattr(self.pipeline, "scheduler", None)
        return bool(getattr(scheduler, "state_in_first_order", True))

    @property
    def pipeline(self) -> Any:
        """Return the pipeline that is running."""
        return self.run.pipeline

    @property
    def raw_timestep(self) -> Any:
        """Return the timestep as the loop has handed it over: a number, or a tensor, which may be
        on the device; None before the first step. To read it waits for nothing."""
        return self._timestep

    def aside(self, work: Callable[..., T], *tensors: Tensor) -> Callable[[], T]:
        """Have ``work(ops, *tensors)`` done without the loop waiting for it, where the framework
        can do that; elsewhere it is done at once.

        Args:
            work: called with the tensor operations and the tensors as they are now, or copies of
                them, in any thread. It must have its result on the host when it returns.
            tensors: of the pipeline's framework.

        Returns:
            A function that waits for the result and returns it, or raises what ``work`` raised. To
            be called once or never, in any thread.
        """
        return self.run.aside(work, *tensors)

    def interrupt(self, *, picture: Picture | None = None) -> None:
        """Finish now: no further step is computed, and the pipeline decodes what there is.

        Args:
            picture: what is decoded. ``"denoised"``: the denoised latents of this step
                (:meth:`denoised`), where they can be computed, and otherwise the latents as the
                callbacks leave them. ``"latents"``: these in any case, as the frameworks do. None:
                the first, unless a callback has written the latents in this step before.

        Raises:
            ValueError: ``picture`` is another word.
            UnsupportedPipelineError: the pipeline's loop cannot be stopped.
        """
        if picture is None:
            written = self._tensors.get("latents") is not self._handed.get("latents")
            picture = "latents" if written else "denoised"
        self.run.interrupt(picture, self._callback_name)

    def denoised(self) -> Tensor | None:
        """Compute what the model takes the finished latents to be (x0), as a Preview shows it; at
        the last step, the latents.

        Returns:
            A tensor of the latents' shape and dtype, on their device; not to be changed in place,
            for it may be the scheduler's own. What callbacks do to the latents in this step is not
            in it. None where there is none: with a scheduler whose x0 cannot be computed, mostly
            at the first step, and before it. :attr:`denoised_kind` says which it is.

        Raises:
            Exception: whatever goes wrong in a scheduler that is not as its class says.
        """
        if self.denoised_kind == "none":
            return None
        if self.index + 1 == self.num_timesteps:
            return self._tensors["latents"]
        return self.run.denoised.compute(self._handed.get("latents"))

    @property
    def denoised_kind(self) -> DenoisedKind:
        """Tell how good :meth:`denoised` is: ``"exact"`` is x0 to rounding; ``"estimate"`` the same
        formula where it holds only nearly; ``"none"``: there is none at this step, or with this
        scheduler at all (docs/denoised.md)."""
        if self.index < 0 or "latents" not in self._tensors:
            return "none"
        is_last = self.index + 1 == self.num_timesteps
        there_is = is_last or self.lazy_denoised() is not None
        return self.run.denoised.kind if there_is else "none"

    def lazy_denoised(self) -> LazyDenoised | None:
        """Return what :meth:`denoised` would compute, not computed yet: for :meth:`aside`. None
        where there is none, and at the last step."""
        if self.index < 0 or self.index + 1 == self.num_timesteps:
            return None
        return self.run.denoised.lazy(self._handed.get("latents"))

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._current[1]:
            raise undeclared(self, name)
        return self._tensors[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        if name not in self._current[1]:
            raise undeclared(self, name)
        check_replacement(self, name, value, self._tensors[name])
        self._tensors[name] = value

    @property
    def _callback_name(self) -> str:
        """Return what messages call the callback that it is handed to."""
        callback = self._current[0]
        return "a callback" if callback is None else callback._name_in_messages()

    def handed(self, name: str) -> Tensor | None:
        """Return a tensor as the loop has handed it over, before any callback of this step changed
        it; None where it was not asked for."""
        return self._handed.get(name)

    def hand_back(self, name: str, value: Tensor) -> None:
        """Write a tensor that the loop takes back from callbacks without offering it to them. A
        loop that does not take it drops it."""
        self._tensors[name] = value

    def in_loop(self, name: str) -> Any:
        """Return a tensor as earlier callbacks of this step left it, or else the loop's local
        variable of this name, whether it is offered to callbacks or not; None where there is
        none."""
        if name in self._tensors:
            return self._tensors[name]
        return self.run.loop_locals([name]).get(name)
