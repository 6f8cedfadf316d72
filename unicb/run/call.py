"""Follow one call of a pipeline with callbacks bound: its loops, and their ends."""

from __future__ import annotations

import logging
import time
import weakref
from functools import partial
from sys import _getframe
from types import FrameType
from typing import Any

from unicb.callback import name_of
from unicb.errors import GenerationCancelled, UnicbError
from unicb.ops import Tensor
from unicb.run.asked import Bound, CallTimes
from unicb.run.busy import User, take_free
from unicb.run.call_loop import loop_calling, loop_of, loop_stepping
from unicb.run.decoding import Decoding
from unicb.run.handle import Handle, State
from unicb.run.loop import FrameId, Outputs, is_given, is_given_anywhere
from unicb.run.model_hooks import ModelHooks
from unicb.run.own_bar import hide_bar
from unicb.run.run import Run
from unicb.run.scope import Scope, innermost
from unicb.run.sigint import Sigint
from unicb.run.through_blocks import raised_in_loop
from unicb.run.waiting import Waiting
from unicb.step import timestep_number

log = logging.getLogger("unicb")


class Call:
    """A call is handed to a pipeline as its step-end callback: a run begins with each of the call's
    loops.

    Args:
        bound: the pipeline and its callbacks.
        handle: the binding's.
        sigint: whether the first Ctrl-C interrupts the run.
        scope: of a call that unicb makes itself; None where somebody else makes it. Then nobody
            but that call must refer to this object: it dies with the call.

    Raises:
        UnicbError, UnsupportedPipelineError: as from :class:`Waiting`.
    """

    def __init__(
        self, bound: Bound, handle: Handle, sigint: Sigint = "no", scope: Scope | None = None
    ) -> None:
        self._bound, self._handle, self._scope = bound, handle, scope
        self._called_at = time.monotonic()
        self._run: Run | None = None
        self._is_over = False
        self._hooks = ModelHooks(bound.target.backend)
        self._waiting = Waiting(bound, handle, sigint, scope, self._hooks, self.loop_begins)
        self._show_bar = hide_bar(bound.target, _Calling(self)) if bound.hides_bar else None
        returned = self.release if scope is None else None
        self._decoding = Decoding(handle, handle.calls.add(self), returned)

    def __call__(
        self, pipeline: Any, index: int, timestep: Any, callback_kwargs: dict[str, Tensor]
    ) -> Outputs:
        """Run the callbacks at the end of a step; the signature is the frameworks'."""
        run, handle = self._run, self._handle
        # An index that follows on is that of the run's own loop, in the middle of a pass. To ask
        # for the caller's frame would be a fifth of what a step's end takes in all.
        if run is None or run.next_index != index or (self._scope is None and handle.has_failed):
            run = self._run_of(pipeline, _getframe(1))
            if run.runs_out:
                return self._decoding.timed(run.run_out(index, callback_kwargs), run.loop)
        try:
            outputs = run.step_end(index, timestep, callback_kwargs)
            handle.step = run.index
            if run.next_index is not None and handle.request is None:
                run.denoised.goes_on_with(outputs.get("latents"))
                return outputs
            request = handle.last_step(run)
            if request is not None:
                if request.what == "cancel":
                    run.record.stopped(request.by, run.index)
                    raise cancelled(run, outputs.get("latents"))
                run.interrupt(request.picture, request.by)
        except BaseException as error:
            self._fail(run, error)
            raise
        self.settled()
        run.settle(outputs, callback_kwargs)
        return self._decoding.timed(outputs, run.loop)

    def has_run(self, run: Run) -> bool:
        """Return whether the run is one of this call."""
        return self._run is run

    def is_calling(self) -> bool:
        """Return whether who is calling is the pipeline's call that was given this, and not a
        callback in it."""
        if self._run is not None and self._run.calls_back:
            return False
        return innermost() is self._scope if self._scope is not None else is_given(self)

    @property
    def is_awaited(self) -> bool:
        """Return whether no run has begun with this call yet, and one may."""
        return self._run is None and not self._is_over

    def is_executing(self) -> bool:
        """Return whether some thread is in the pipeline's call that was given this."""
        return self._scope.is_open if self._scope is not None else is_given_anywhere(self)

    def end(self, error: BaseException | None) -> None:
        """End the run: the pipeline's call is over, with this error or without any. Idempotent."""
        self._decoding.stop(failed=error is not None)
        run = self._run
        if run is not None and error is not None:
            self._fail(run, error)
        elif run is not None:
            self._handle.settle(run, "finished")
            run.finish("finished")
        else:
            self._handle.settle(None, "finished" if error is None else state_after(error))
        self._handle.remove_gates()
        self.release()
        self._handle.forget()

    def __del__(self) -> None:
        if self._scope is None and hasattr(self, "_decoding"):  # it was made in full
            self.release()
            self._handle.forget()
            if self._run is not None and not self._run.is_executing():
                self._run.finish()

    def cancel_at_once(self) -> None:
        """Raise GenerationCancelled if this call's loop is calling, and is to be cancelled."""
        request = self._handle.request
        if request is None or request.what != "cancel":
            return
        run = self._run
        if run is not None and not run.is_over:
            if not run.owns_current_call():
                return
            run.record.stopped(request.by, run.index)
            error = cancelled(run, run.loop_locals(["latents"]).get("latents"))
            self._fail(run, error)
            raise raised_in_loop(self._bound.target, error)
        if innermost() is self._scope if self._scope is not None else is_given(self):
            self._is_over = True
            self._handle.settle(None, "cancelled")
            self._handle.remove_gates()
            raise raised_in_loop(self._bound.target, GenerationCancelled(-1, None))

    @property
    def runs_out(self) -> bool:
        """Return whether its run was stopped, and no further step is to be computed."""
        return self._run is not None and self._run.runs_out

    def _run_of(self, pipeline: Any, frame: FrameType) -> Run:
        """Return the run whose loop is the frame, or has called it; begin one if there is none."""
        run = self._run
        if run is not None and not run.is_over and run.index >= 0 and run.is_of(frame):
            return run  # nobody has put a function between
        is_ours = self._scope is not None and pipeline is self._bound.target.pipeline
        if is_ours and run is not None and run.runs_out:
            return run  # whatever loops are left of a call that was stopped
        frame_id = loop_stepping(self._bound.target, pipeline, frame)
        early = run is not None and run.index < 0 and run.is_calling()
        if run is None or run.is_over or not (early or run.loop.frame_id == frame_id):
            run = self._begin(pipeline, frame_id)
        if run.index < 0 and (early or self._bound.early):
            try:
                _check_first_step(self._bound, pipeline, early)
            except BaseException as error:
                self._fail(run, error)
                raise
            run.loop.frame_id = frame_id
        return run

    def loop_begins(self) -> None:
        """Begin a run if a model's call, or a modular pipeline's step, is the first in a loop of
        ours."""
        run = self._run
        if run is not None and (run.calls_back or run.is_calling()):
            return
        frame_id = loop_calling(self, self._bound.target, self._scope)
        if frame_id is None:
            return
        run = self._begin(self._bound.target.pipeline, frame_id)
        try:
            run.before_first_step()
        except BaseException as error:
            self._fail(run, error)
            raise

    def _begin(self, pipeline: Any, frame_id: FrameId) -> Run:
        _check_pipeline(self._bound, pipeline)
        if self._run is not None:
            self._run.finish()
        run = self._handle.begin(lambda: self._new_run(frame_id))
        self._run = run
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: a run begins", self._bound.target.name)
        if self._scope is None:
            # What nobody has asked for before the call is asked for now, for others to see.
            run.on_finish(take_free(pipeline, User(run.is_executing)).release)
        else:
            self._waiting.begin()
        return run

    def _new_run(self, frame_id: FrameId) -> Run:
        times = CallTimes(self._called_at, self._handle.decode_seconds)
        return Run(self._bound, partial(loop_of, frame_id, self._scope), times, self._hooks)

    def _fail(self, run: Run, error: BaseException | None) -> None:
        state = state_after(error)
        if self._handle.settle(run, state):
            self.settled()
        run.finish("cancelled" if state == "cancelled" else "failed", error)

    def settled(self) -> None:
        """Stop waiting: the call's run has ended, or has failed, and nobody waits for a stop of it
        any more."""
        self._handle.remove_gates()
        self._waiting.run_ended()

    def release(self) -> None:
        """Take away what waits for the call's first step, or for Ctrl-C, and what the call changes.
        Idempotent."""
        self._waiting.release()
        if self._show_bar is not None:
            self._show_bar()


class _Calling:
    """Says which calls are a call's own, and does not keep that alive."""

    def __init__(self, call: Call) -> None:
        self._call = weakref.ref(call)

    def owns_current_call(self) -> bool:
        call = self._call()
        return call is not None and call.is_calling()


def _check_first_step(bound: Bound, pipeline: Any, early: bool) -> None:
    """Check a run at the end of its first step, where callbacks had to act before it."""
    _check_pipeline(bound, pipeline)
    if not early:
        raise UnicbError(
            f"{name_of(bound.early[0])} acts before a run's first step, and the run has been "
            "noticed only now: call the binding, as in callbacks(prompt), or unpack it in each "
            "call of the pipeline, as in pipe(prompt, **callbacks), and hand on its callback as it "
            "is"
        )


def _check_pipeline(bound: Bound, pipeline: Any) -> None:
    if pipeline is not bound.target.pipeline:
        raise UnicbError(
            f"a binding of a {bound.target.name} was called by another pipeline, a "
            f"{type(pipeline).__name__}; a binding serves the pipeline it was made for: call "
            "bind() for the other one"
        )


def state_after(error: BaseException | None) -> State:
    return "cancelled" if isinstance(error, GenerationCancelled) else "failed"


def cancelled(run: Run, latents: Tensor | None) -> GenerationCancelled:
    if run.index < 0:
        return GenerationCancelled(-1, None)
    host = run.ops.to_numpy(latents) if run.is_tensor(latents) else None
    return GenerationCancelled(run.index, timestep_number(run.timestep, run.ops), host)
