"""Notice the end of a step in a call that unicb makes: by the callback that the loop calls; in a
loop that calls none, by its scheduler; in a modular pipeline, by its loop blocks.

In each case, a :class:`Call` is called with the frameworks' signature, and everything after that is
the same.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from sys import _getframe
from types import FrameType
from typing import Any, Protocol

import numpy as np

from unicb._outputs import part_of, with_part
from unicb.errors import UnsupportedPipelineError
from unicb.pipelines.scheduled import Stepping, check_scheduler
from unicb.pipelines.source import CALLBACK
from unicb.pipelines.target import Target
from unicb.run.asked import Bound
from unicb.run.call import Call
from unicb.run.handle import Handle
from unicb.run.holds import Hold, hold, unheld
from unicb.run.loop import id_of, loop_locals, outside
from unicb.run.rounds import note_rounds
from unicb.run.scope import Scope, innermost
from unicb.run.through_blocks import or_through_blocks

TENSOR_INPUTS = "callback_on_step_end_tensor_inputs"


class Source(Protocol):
    """A source notices the ends of steps in one call of a pipeline."""

    def start(self) -> dict[str, Any]:
        """Begin, and return the keyword arguments to add to the pipeline's call."""

    def stop(self, failed: bool) -> None:
        """Stop: the call has ended, with an error if ``failed``."""


def source_of(bound: Bound, call: Call, handle: Handle, scope: Scope, names: list[str]) -> Source:
    """Return the source that notices the ends of steps in a call of this pipeline. ``names`` are
    the names of the tensors to ask the loop for."""
    target = bound.target
    if target.modular is not None:
        from unicb.run.loop_steps import LoopStepSource

        return LoopStepSource(bound, target.modular, call, handle, scope, names)
    if target.scheduled is None:
        return CallbackSource(call, names)
    return SchedulerSource(target, target.scheduled, call, handle, scope)


class CallbackSource:
    """The loop calls the callback that it is given.

    Args:
        call: the callback.
        names: names of the tensors that the callback gets.
    """

    def __init__(self, call: Call, names: list[str]) -> None:
        self._call, self._names = call, names

    def start(self) -> dict[str, Any]:
        return {CALLBACK: self._call, TENSOR_INPUTS: self._names}

    def stop(self, failed: bool) -> None:
        """Do nothing: nothing was begun."""


class SchedulerSource:
    """A step ends when the loop's ``scheduler.step`` returns: callbacks get its result, and the
    loop gets what they return.

    Steps are counted, and the number of all steps is the length of what the loop iterates over, so
    that nothing is read from the device.

    Args:
        target: the pipeline with unicb's facts about it.
        loop: how the loop of its class steps.
        call: called at each step's end.
        handle: the binding's handle.
        scope: the scope of the call; steps in other scopes are ignored.
    """

    def __init__(
        self, target: Target, loop: Stepping, call: Call, handle: Handle, scope: Scope
    ) -> None:
        self._target, self._loop = target, loop
        self._call, self._handle, self._scope = call, handle, scope
        self._scheduler: Any = None
        self._hold: Hold | None = None
        #: Number of steps of the pass that have ended, number of its steps, and its timesteps.
        self._done, self._count = 0, 0
        self._timesteps: Any = None
        self._is_shaped_back = False

    def start(self) -> dict[str, Any]:
        check_scheduler(self._target.pipeline, self._loop)  # it may have been replaced since bind
        if self._target.blocks is not None:
            self._target.blocks.check_unchanged(self._target.pipeline)
        self._scheduler = self._target.pipeline.scheduler
        self._hold = hold(self._scheduler, "step", _like(self._scheduler.step, self), self)
        return {}

    def stop(self, failed: bool) -> None:
        if self._hold is not None:
            self._hold.release()
        self._timesteps = self._target.step_arguments = None
        if failed or self._handle.state == "interrupted" or 0 < self._done == self._count:
            return
        seen = f"after {self._done} of its {self._count} steps" if self._done else "before any step"
        warnings.warn(
            f"the call of {self._target.name} has returned, and of its scheduler nothing was heard "
            f"{seen}: callbacks were not called for the rest. Was the scheduler exchanged, or a "
            "copy of it used?",
            RuntimeWarning,
            stacklevel=5,
        )

    def owns_current_call(self) -> bool:
        """Return whether the caller is the pipeline's call, and not a callback in it."""
        run = self._handle.run
        in_callback = run is not None and run.calls_back
        return not in_callback and innermost() is self._scope

    def step(self, frame: FrameType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Replace ``scheduler.step``, called in this frame with these arguments."""
        below = unheld(self._scheduler, "step")  # the scheduler's own, not this run's replacement
        self._target.step_arguments = kwargs
        out = below(*args, **kwargs)
        if self._loop.code not in (None, frame.f_code):
            return out  # not a call of the loop itself
        part = self._loop.part_at(frame.f_lineno, out)
        whole, locals_of = part_of(out, part), functools.partial(_locals_of, frame)
        latents, around = self._loop.own(whole, locals_of), self._loop.around
        if around is not None and not around.reshapes:
            latents = around.kept(latents, locals_of)
        index = self._index(frame)
        timestep = kwargs.get("timestep", args[1] if len(args) > 1 else None)
        about = self._target.pipeline, index, timestep, {"latents": latents}
        if self._target.blocks is None:
            outputs = self._call(*about)
        else:
            outputs = or_through_blocks(self._call, *about)
        new = outputs.get("latents", latents)
        if new is latents:
            return out
        stepped = self._loop.as_stepped(new, whole, self._target.backend.ops, locals_of)
        if around is not None and around.reshapes:
            self._check_shaped_back(around.kept(stepped, locals_of), new)
        return with_part(out, part, stepped)

    def _check_shaped_back(self, again: Any, written: Any) -> None:
        """Raise UnsupportedPipelineError if the loop's reshaping would change what a callback has
        written. This is checked once, because it waits for the device."""
        if self._is_shaped_back:
            return
        a, b = map(self._target.backend.ops.to_numpy, (again, written))
        self._is_shaped_back = np.array_equal(a, b, equal_nan=True)
        if not self._is_shaped_back:
            raise UnsupportedPipelineError(
                f"what a callback wrote cannot reach the loop of {self._target.name}: it steps "
                "its latents in another shape, and does not give them back as they were"
            )

    def _index(self, frame: FrameType) -> int:
        """Return the number of the step that has ended, in its pass over the timesteps."""
        timesteps = getattr(self._scheduler, "timesteps", None)
        is_kept = timesteps is getattr(self._scheduler, "timesteps", None)
        if self._done >= self._count or (is_kept and timesteps is not self._timesteps):
            self._done, self._timesteps = 0, timesteps
            note_rounds(self._target, frame)
            self._count = self._target.num_timesteps(functools.partial(_locals_of, frame))
        self._done += 1
        return self._done - 1


def _locals_of(frame: FrameType, names: Sequence[str]) -> dict[str, Any]:
    return loop_locals(id_of(frame), names)


def _like(step: Any, source: SchedulerSource) -> Any:
    """Make the function that replaces ``step``, with the same signature, which pipelines inspect to
    see what it takes."""

    @functools.wraps(step)
    def stepped(*args: Any, **kwargs: Any) -> Any:
        return source.step(outside(_getframe(1)), args, kwargs)

    return stepped
