"""One run of a pipeline, from the end of its first step (or before it) to that of its last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import FrameType
from typing import Any, cast
from weakref import ref

from unicb.backend import Backend, T
from unicb.callback import Callback
from unicb.errors import UnsupportedPipelineError
from unicb.guidance import Cut, Scaling, cut, is_off, scaling
from unicb.guidance._attributes import Ours, put_back
from unicb.ops import Tensor, TensorOps
from unicb.pipelines import PipelineFacts, num_timesteps_of
from unicb.run.first_call import Hooked, NotingHooks
from unicb.run.loop import FrameId, calls_us, loop_locals, runs_in_thread
from unicb.run.stopping import Replay, check_stoppable, models_of, stops_by_flag
from unicb.step import Step

_UNDO_SECONDS = 10.0


class Outputs(dict[str, Tensor]):
    """What goes back into the loop: a dict whose end can be noticed.

    Loops keep it in a local from one step end to the next, so it dies when the loop does.
    """

    __slots__ = ("__weakref__",)


class Run:
    """State of one run, and the changes that it has to undo.

    Attributes:
        called_at: seconds on ``time.monotonic``'s clock when the pipeline was called.
        decode_seconds: what an earlier call took from its last step to its return, if that is
            known.
        index, timestep: of the last step that has ended; -1 and None before the first has.
        over: nothing is left of it on the pipeline.
        interrupted: no further step is to be computed.
        is_tensor: see :meth:`unicb.backend.Backend.is_tensor`.
        tensor_type: of what it has last found to be a tensor.
        next_index: that with which the loop calls next, if it goes on in its pass over the
            timesteps; None where none has begun, or there is nothing more to compute.
        num_timesteps: of the pass.
        returned: the latents as the callbacks left them at the end of the step before, if
            ``keeps_returned`` is set; None before, and when the run is over.
    """

    def __init__(
        self,
        pipeline: Any,
        backend: Backend,
        facts: PipelineFacts | None,
        callbacks: Sequence[Callback],
        frame_id: FrameId,
        called_at: float,
        decode_seconds: float | None = None,
        on_over: Callable[[Run], None] = lambda run: None,
    ) -> None:
        self.pipeline = pipeline
        self.ops: TensorOps = backend.ops
        self.is_tensor = backend.is_tensor
        self.tensor_type: type | None = None
        self.frame_id = frame_id
        self.thread_id = threading.get_ident()
        self.called_at, self.decode_seconds = called_at, decode_seconds
        self.index = -1
        self.next_index: int | None = None
        self.num_timesteps = 0
        self.timestep: Any = None
        self._offset = 0
        self.over = False
        self.interrupted = False
        self._on_over = on_over
        self._lets_go = False
        self._lock = threading.Lock()
        self._finisher = 0
        self._undone = threading.Event()
        self._backend = backend
        self._facts = facts
        self._callbacks = callbacks
        # Whatever one of these raises, the others are called too.
        self._at_end, self._callbacks_end = ExitStack(), ExitStack()
        self._called_early: list[Callback] = []
        self._replay: Replay | None = None
        self._stopped_with: dict[str, Tensor] | None = None
        self._outputs: ref[Outputs] | None = None
        self._batch_of = "latents" if facts is None else facts.batch_of
        self._batch_before = "" if facts is None else facts.batch_before
        self.keeps_returned = False
        self.returned: Tensor | None = None
        self._cut: Cut | None = None
        self._scaling: Scaling | None = None
        self._scale_set: dict[str, Ours] = {}
        self._scale_after_cut: float | None = None

    def step_end(self, index: int, timestep: Any, tensors: dict[str, Tensor]) -> Outputs:
        """Call the callbacks in order; returns the tensors that go back into the loop."""
        outputs = Outputs(tensors)
        if self.next_index != index:
            self._begin_pass(index)
        index += self._offset
        step = Step(self, index, self.num_timesteps, timestep, outputs, tensors)
        if self._cut is not None:
            self._cut.step_end()
        if self._scaling is not None:
            self._scaling.step_end()
        self.index, self.timestep = index, timestep
        for callback in self._callbacks:
            step._names = callback.tensors
            callback.on_step_end(step)
        if self.keeps_returned:
            self.returned = outputs.get("latents")
        index += 1
        goes_on = index < self.num_timesteps and not self.interrupted
        self.next_index = index - self._offset if goes_on else None
        self._outputs = ref(outputs, self._loop_ended)
        return outputs

    def _begin_pass(self, index: int) -> None:
        """The loop begins, or counts anew for the next part of a long video."""
        if index < self.index - self._offset:
            self._offset = self.index + 1
        self.num_timesteps = num_timesteps_of(self.pipeline)
        if self.index < 0:
            self._start()

    def before_first_step(self, callbacks: Sequence[Callback]) -> Hooked:
        """Call those of the callbacks that act before the first step. Returns the hooks that they
        have had put on the models, which do not answer the call that is under way.
        """
        plain, noting = self._backend, NotingHooks(self._backend)
        self._backend = cast(Backend, noting)
        counted = self.loop_locals([self._batch_of, self._batch_before])
        latents = next((x for x in counted.values() if self.is_tensor(x)), None)
        tensors = {} if latents is None else {self._batch_of: latents}
        step = Step(self, self.index, num_timesteps_of(self.pipeline), None, {}, tensors)
        try:
            for callback in callbacks:
                self._callbacks_end.callback(callback.on_run_end)
                self._called_early.append(callback)
                callback.before_first_step(step)
        finally:
            self._backend = plain
        return noting.hooked

    @property
    def runs_out(self) -> bool:
        """Whether it was interrupted, and its loop goes on all the same, with nothing to do."""
        return self._stopped_with is not None

    def run_out(self, index: int, tensors: dict[str, Tensor]) -> Outputs:
        """In place of :meth:`step_end` in such a loop: the tensors stay what they were."""
        assert self._stopped_with is not None
        for name, tensor in tensors.items():
            # A loop may go on to another resolution: its own are of the size that it expects.
            shapes = [getattr(x, "shape", None) for x in (tensor, self._stopped_with.get(name))]
            if shapes[0] != shapes[1]:
                self._stopped_with[name] = tensor
        outputs = Outputs({name: self._stopped_with[name] for name in tensors})
        self._outputs = ref(outputs, self._loop_ended)
        if self._lets_go and index + 1 >= num_timesteps_of(self.pipeline):
            self.finish()
        return outputs

    def settle(self, outputs: dict[str, Tensor]) -> None:
        """The last step has ended. The callbacks are told; and where the loop does not end here,
        it is made to run out."""
        self.next_index = None
        ends_unseen = self._lets_go and self.index + 1 >= num_timesteps_of(self.pipeline)
        if self._replay is not None and self.interrupted and not ends_unseen:
            self._stopped_with = dict(outputs)
            self._replay.stopped = True
        try:
            self._callbacks_end.close()
        finally:
            if self._stopped_with is None:
                self.finish()

    def aside(self, work: Callable[..., T], tensors: Sequence[Tensor]) -> Callable[[], T]:
        return self._backend.aside(work, tensors)

    def loop_locals(self, names: Sequence[str]) -> dict[str, Any]:
        return loop_locals(self.frame_id, names)

    def finish(self) -> None:
        """End the run: undo what it changed, tell the callbacks. Idempotent."""
        with self._lock:
            begun, self.over = self.over, True
            if not begun:
                self._finisher = threading.get_ident()
        if begun:
            # Who looks after a run from another thread may be about it: nothing is left on the
            # pipeline when its call returns.
            if self._finisher != threading.get_ident():
                self._undone.wait(_UNDO_SECONDS)
            return
        self._outputs = self._stopped_with = None
        self.next_index = self.returned = None
        try:
            with self._at_end:
                self._callbacks_end.close()
        finally:
            self._undone.set()
            self._on_over(self)

    def is_of(self, frame: FrameType) -> bool:
        """Whether the frame is that of the run's loop."""
        return self.frame_id == (id(frame), frame.f_code)

    def is_executing(self) -> bool:
        """Whether the run's loop is still on its thread's stack."""
        return not self.over and runs_in_thread(self.frame_id, self.thread_id)

    def is_calling(self) -> bool:
        """Whether the run's loop is among our callers."""
        return not self.over and calls_us(self.frame_id)

    def request_interrupt(self) -> None:
        if stops_by_flag(self.pipeline):
            self.pipeline._interrupt = True
        else:
            check_stoppable(self.pipeline, self._facts)
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
            self._scale_after_cut = value  # the loop reads in it now that guidance is off
            return
        attribute = "_guidance_scale"
        if not self._scale_set:
            before = self.pipeline._guidance_scale
            self.on_finish(lambda: put_back(self.pipeline, attribute, before, self._scale_set))
        self._scale_set[attribute] = Ours(value)
        setattr(self.pipeline, attribute, self._scale_set[attribute])

    def cut_guidance(self, tensors: Mapping[str, Tensor]) -> bool:
        if self._cut is not None:
            return False
        first = self.index < 0
        if first and self.guidance_is_off():
            return False
        rows = tensors.get(self._batch_of)
        made = cut(self._backend, self.pipeline, self._facts, rows, self, within=first)
        if made is None:
            return False
        self.on_finish(made.remove)
        self._cut = made
        if self._replay is not None:
            self._replay.to_front()
        return True

    def restore_guidance(self) -> bool:
        if self._cut is None:
            return False
        made, self._cut = self._cut, None
        made.restore()
        after, self._scale_after_cut = self._scale_after_cut, None
        if after is not None:
            self.set_guidance_scale(after)
        return True

    def set_guidance(self, scale: float, tensors: Mapping[str, Tensor]) -> None:
        if self._scaling is None:
            # Above a cut, as below it: what a scaling does to one block alone is nothing.
            rows = tensors.get(self._batch_of)
            made = scaling(self._backend, self.pipeline, self._facts, rows, self)
            self.on_finish(made.remove)
            self._scaling = made
            if self._replay is not None:
                self._replay.to_front()
        if self._scaling.is_off(scale):
            self._scaling.set(None)
            self.cut_guidance(tensors)
        else:
            self.restore_guidance()
            self._scaling.set(scale)

    def guidance_is_off(self) -> bool:
        return is_off(self.pipeline, self._facts, self)

    def on_finish(self, undo: Callable[[], None]) -> None:
        """Have ``undo`` called when the run is over, however it ends."""
        self._at_end.callback(undo)

    def _start(self) -> None:
        if not stops_by_flag(self.pipeline) and models_of(self.pipeline, self._facts):
            replay = Replay(self._backend, self.pipeline, self._facts, self.is_calling)
            self._replay = replay
            self.on_finish(replay.remove)
        for callback in self._callbacks:
            if not any(callback is early for early in self._called_early):
                self._callbacks_end.callback(callback.on_run_end)
            callback.on_run_start()

    def _loop_ended(self, _: object) -> None:
        if self.is_executing():
            self._lets_go = True  # of the dict, which it may; so nobody tells when it ends
        else:
            self.finish()
