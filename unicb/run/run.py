"""Follow one run of a pipeline, from the end of its first step (or before it) to that of its
last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from types import FrameType
from typing import Any, get_args

from unicb.checks import one_of
from unicb.guidance._guided import RunGuidance
from unicb.ops import Tensor
from unicb.run.asked import AskedRun, Bound, CallTimes
from unicb.run.calling_back import call_at_start, call_at_step_end, call_before_first_step
from unicb.run.denoised import RunDenoised
from unicb.run.ending import Outcome
from unicb.run.loop import Loop, Outputs
from unicb.run.model_hooks import ModelHooks
from unicb.run.running_out import RunningOut
from unicb.step import Picture, Step


class Run(AskedRun):
    """``Run`` is a run of a pipeline, as its callbacks see it in ``step.run``, and what it has to
    put back.

    Attributes:
        num_timesteps: of its pass over the timesteps.
        index: of the last step that has ended, from 0; -1 before the first has.

    Example:
        >>> class CountSteps(Callback):
        ...     def on_step_end(self, step):
        ...         step.run.state(self, list).append(step.index)
        ...     def on_run_end(self, run):
        ...         print(run.outcome, run.state(self, list))
        >>> image = bind(pipe, CountSteps())("a red star", num_inference_steps=3)[0]
        finished [0, 1, 2]
    """

    def __init__(
        self,
        bound: Bound,
        make_loop: Callable[[Run], Loop],
        times: CallTimes,
        hooks: ModelHooks,
    ) -> None:
        super().__init__(bound, times)
        self._hooks = hooks
        self.index = -1
        self.num_timesteps = 0
        #: With which the loop calls next, if it goes on in its pass over the timesteps; None where
        #: none has begun, or there is nothing more to compute.
        self.next_index: int | None = None
        self.timestep: Any = None
        self.loop = make_loop(self)
        self._offset = 0
        self._out = RunningOut(bound.target, self)
        self.denoised = RunDenoised(self)
        #: Called at the end of each step with what the loop has handed over.
        self._watchers: list[Callable[[Mapping[str, Tensor]], None]] = []
        self.guidance = RunGuidance(bound.target, self)
        self._note_step_end = self.record.step_ends.append

    # Whose calls are its own.

    @property
    def index_in_pass(self) -> int:
        """Return the index of the last step in its own pass over the timesteps."""
        return self.index - self._offset

    @property
    def interrupted(self) -> bool:
        """Return whether no further step is to be computed."""
        return self._out.interrupted

    @property
    def is_over(self) -> bool:
        """Return whether the run has ended: nothing of it is left on the pipeline, or will be in a
        moment."""
        return self.ending.begun

    def is_of(self, frame: FrameType) -> bool:
        """Return whether the frame is that of the run's loop."""
        return self.loop.frame_id == (id(frame), frame.f_code)

    @property
    def calls_back(self) -> bool:
        """Return whether the run is in its callbacks."""
        return self._calls_back

    def is_calling(self) -> bool:
        """Return whether the run's loop, or one of its callbacks, is among our callers."""
        return not self.ending.begun and self.loop.is_calling()

    def is_executing(self) -> bool:
        """Return whether the run's loop has not ended."""
        return not self.ending.begun and self.loop.is_executing()

    # Its steps.

    def step_end(self, index: int, timestep: Any, tensors: dict[str, Tensor]) -> Outputs:
        """Call the callbacks in order; returns the tensors that go back into the loop."""
        outputs = Outputs(tensors)
        self._calls_back = True
        try:
            if self.next_index != index:
                self._begin_pass(index, timestep)
            index += self._offset
            self.denoised.see(tensors.get("latents"))
            step = Step(self, index, self.num_timesteps, timestep, outputs, tensors)
            for watch in self._watchers:
                watch(tensors)
            self.index, self.timestep = index, timestep
            call_at_step_end(self._bound.callbacks, step)
        finally:
            self._calls_back = False
        index += 1
        goes_on = index < self.num_timesteps and not self._out.interrupted
        self.next_index = index - self._offset if goes_on else None
        self.loop.handed(outputs)
        self._note_step_end(monotonic())
        return outputs

    def _begin_pass(self, index: int, timestep: Any) -> None:
        """Begin a pass: the loop begins, or counts anew for the next part of a long video."""
        if index < self.index - self._offset:
            self._offset = self.index + 1
        self.num_timesteps = self.record.num_timesteps = self._count_timesteps()
        self.denoised.begin_pass()
        if self.index < 0:
            if self.denoised.begin(timestep, self.num_timesteps):
                self.watch_steps(self.denoised.note)
            self._out.watch()
            call_at_start(self._bound, self)

    def _count_timesteps(self) -> int:
        return self.target.num_timesteps(self.loop_locals)

    def before_first_step(self) -> None:
        """Call those of the callbacks that act before the first step."""
        self.num_timesteps = self.record.num_timesteps = self._count_timesteps()
        self._calls_back = True
        step = Step(self, -1, self.num_timesteps, None, {}, self.guidance.counted())
        try:
            self.guidance.look_on()
            call_before_first_step(self._bound.early, step)
        finally:
            self._calls_back = False

    def watch_steps(self, watch: Callable[[Mapping[str, Tensor]], None]) -> None:
        """Have ``watch`` called at the end of each step, with what the loop has handed over."""
        if watch not in self._watchers:
            self._watchers.append(watch)

    @property
    def runs_out(self) -> bool:
        """Return whether the run was interrupted, and its loop goes on all the same, with nothing
        to do."""
        return self._out.is_on

    def run_out(self, index: int, tensors: dict[str, Tensor]) -> Outputs:
        """Do what :meth:`step_end` does elsewhere, in a loop that runs out."""
        outputs = self._out.outputs(tensors)
        self.loop.handed(outputs)
        if self.loop.lets_go and index + 1 >= self._count_timesteps():
            self.finish()
        return outputs

    # Its end.

    def interrupt(self, picture: Picture, by: str) -> None:
        """Compute no further step, and decode this; ``by``: who asks for it, for the report."""
        one_of("picture", picture, get_args(Picture))
        self._out.interrupt()
        self.denoised.picture = picture
        self.record.stopped(by, self.index)

    def settle(self, outputs: dict[str, Tensor], handed: Mapping[str, Tensor]) -> None:
        """End the run for its callbacks: its last step has ended, with these tensors handed over.
        Where the loop does not end here, it is made to run out."""
        self.next_index = None
        is_early = self.index + 1 != self.num_timesteps
        if self.interrupted and self.denoised.picture == "denoised" and is_early:
            self.denoised.put_into(outputs, handed)
        self.ending.outcome = "interrupted" if self.interrupted else "finished"
        self.record.ended(self.ending.outcome, None)
        ends_unseen = self.loop.lets_go and self.index + 1 >= self._count_timesteps()
        if self.interrupted and not ends_unseen:
            self._out.stop(outputs)
        self._calls_back = True
        try:
            self.ending.callbacks.close()
        finally:
            self._calls_back = False
            if not self._out.is_on:
                self.finish()

    def finish(self, outcome: Outcome = "failed", error: BaseException | None = None) -> None:
        """End the run: undo what it changed, tell the callbacks. Idempotent.

        Args:
            outcome: how it has ended, where its last step has not.
            error: what ended it.
        """
        if not self.ending.begin():
            return
        if self.ending.outcome is None:
            self.ending.outcome, self.ending.error = outcome, error
            self.record.ended(outcome, error)
        self.next_index = None
        self.denoised.forget()
        self._out.forget()
        self.loop.forget()
        self._calls_back = True
        try:
            self.ending.run(self.record.close, partial(self._bound.on_over, self))
        finally:
            self._calls_back = False
