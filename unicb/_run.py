"""One run of a pipeline, from the end of its first step to the end of its last."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from unicb._frames import calls_us, loop_locals, runs_in_thread
from unicb._restoring import Ours, put_back
from unicb.backend import Backend, T
from unicb.callback import Callback
from unicb.errors import UnsupportedPipelineError
from unicb.guidance import Cut, cut
from unicb.ops import Tensor, TensorOps
from unicb.pipelines import PipelineFacts, num_timesteps_of, require_interrupt_flag
from unicb.step import Step


class Outputs(dict[str, Tensor]):
    """What goes back into the loop: a dict whose end can be noticed.

    Loops keep it in a local from one step end to the next, so it dies when the loop does.
    """

    __slots__ = ("__weakref__",)


class Run:
    """State of one run, and the changes that it has to undo."""

    def __init__(
        self,
        pipeline: Any,
        backend: Backend,
        facts: PipelineFacts | None,
        callbacks: Sequence[Callback],
        frame_id: int,
    ) -> None:
        self.pipeline = pipeline
        self.ops: TensorOps = backend.ops
        self.frame_id = frame_id
        self.thread_id = threading.get_ident()
        self.index = -1
        self._offset = 0
        self.over = False
        self.interrupted = False
        self._backend = backend
        self._facts = facts
        self._callbacks = callbacks
        # Whatever one of these raises, the others are called too.
        self._at_end = ExitStack()
        self._outputs: weakref.ref[Outputs] | None = None
        self._batch_of = "latents" if facts is None else facts.batch_of
        self._latents: Tensor | None = None
        self._cut: Cut | None = None
        self._scale_set: dict[str, Ours] = {}

    def step_end(self, index: int, timestep: Any, tensors: dict[str, Tensor]) -> Outputs:
        """Call the callbacks in order; returns the tensors that go back into the loop."""
        outputs = Outputs(tensors)
        if index < self.index - self._offset:
            self._offset = self.index + 1  # the loop counts each part of a long video anew
        index += self._offset
        step = Step(self, index, num_timesteps_of(self.pipeline), timestep, outputs)
        if self.index < 0:
            self._start()
        if self._cut is not None:
            self._cut.step_end()
        self.index = index
        self._latents = outputs.get(self._batch_of)
        for callback in self._callbacks:
            step._names = callback.tensors
            callback.on_step_end(step)
        self._latents = None
        self._outputs = weakref.ref(outputs, self._loop_ended)
        return outputs

    def is_tensor(self, value: object) -> bool:
        return self._backend.is_tensor(value)

    def aside(self, work: Callable[..., T], tensors: Sequence[Tensor]) -> Callable[[], T]:
        return self._backend.aside(work, tensors)

    def loop_locals(self, names: Sequence[str]) -> dict[str, Any]:
        return loop_locals(self.frame_id, names)

    def finish(self) -> None:
        """End the run: undo what it changed, tell the callbacks. Idempotent."""
        if self.over:
            return
        self.over = True
        self._outputs = None
        self._latents = None
        self._at_end.close()

    def is_executing(self) -> bool:
        """Whether the run's loop is still on its thread's stack."""
        return not self.over and runs_in_thread(self.frame_id, self.thread_id)

    def is_calling(self) -> bool:
        """Whether the run's loop is among our callers."""
        return not self.over and calls_us(self.frame_id)

    def request_interrupt(self) -> None:
        require_interrupt_flag(self.pipeline)
        self.pipeline._interrupt = True
        self.interrupted = True

    def set_guidance_scale(self, value: float) -> None:
        name = type(self.pipeline).__name__
        if not hasattr(self.pipeline, "_guidance_scale"):
            raise UnsupportedPipelineError(f"{name} has no guidance_scale to set")
        if self._facts is not None and self._facts.guidance_scale == "local":
            raise UnsupportedPipelineError(
                f"{name} reads its guidance scale once, before the loop: a new value would "
                "change nothing"
            )
        if self._cut is not None and self._cut.holds_scale:
            return  # the loop reads in it that guidance is off
        attribute = "_guidance_scale"
        if not self._scale_set:
            before = self.pipeline._guidance_scale
            self._on_finish(lambda: put_back(self.pipeline, attribute, before, self._scale_set))
        self._scale_set[attribute] = Ours(value)
        setattr(self.pipeline, attribute, self._scale_set[attribute])

    def cut_guidance(self) -> bool:
        if self._cut is not None:
            return False
        made = cut(self._backend, self.pipeline, self._facts, self._latents, self)
        if made is None:
            return False
        self._on_finish(made.remove)
        self._cut = made
        return True

    def _on_finish(self, undo: Callable[[], None]) -> None:
        self._at_end.callback(undo)

    def _start(self) -> None:
        for callback in self._callbacks:
            self._at_end.callback(callback.on_run_end)
            callback.on_run_start()

    def _loop_ended(self, _: object) -> None:
        # A loop that is still running has let go of the dict, which it may.
        if not self.is_executing():
            self.finish()
