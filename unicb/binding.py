"""``bind``: callbacks and a pipeline, checked before the run and tied together for it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from sys import _getframe
from types import FrameType, TracebackType
from typing import Any, Literal, Self, TypeAlias

from unicb._bind_checks import (
    CALLBACK,
    acting_early,
    as_callback,
    name_of,
    offered_tensors,
    refuse_conflicts,
    tensor_names,
    with_batch,
)
from unicb.backend import Backend, backend_for
from unicb.callback import Callback, PlainFunction
from unicb.errors import GenerationCancelled, UnicbError, UnsupportedPipelineError
from unicb.guidance._inference import hands_on_callback
from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts, facts_for
from unicb.run.first_call import FirstCalls, Hooked, models_to_watch
from unicb.run.loop import (
    FrameId,
    calls_with,
    loop_frame_given,
    loop_frame_id,
    loop_locals,
    pin_callers,
)
from unicb.run.run import Outputs, Run
from unicb.run.sigint import OnSigint, SigintHandler, check_sigint
from unicb.run.stopping import Gates, check_stoppable
from unicb.run.stopwatch import Stopwatch
from unicb.step import timestep_number

_TENSOR_INPUTS = "callback_on_step_end_tensor_inputs"
_LOOK_SECONDS = 0.05


def bind(
    pipeline: Any,
    *callbacks: Callback | PlainFunction,
    tensor_inputs: Sequence[str] | None = None,
    on_sigint: OnSigint | None = None,
) -> Binding:
    """Tie callbacks to a pipeline: ``pipe(prompt, **bind(pipe, CFGCutoff(0.4)))``.

    Args:
        pipeline: a pipeline of a framework for which a backend is installed.
        callbacks: :class:`Callback` objects, and plain functions in the frameworks' signature
            ``(pipeline, step_index, timestep, callback_kwargs)``, called in this order.
        tensor_inputs: names of the tensors that the plain functions are handed; without it,
            every tensor that the pipeline offers.
        on_sigint: ``"interrupt"``: the first Ctrl-C during a run interrupts it, the second raises
            KeyboardInterrupt; after the run, Ctrl-C does what it did before. The pipeline has to
            be called in the main thread then. None leaves Ctrl-C alone.

    Raises:
        BackendNotFoundError, BackendLoadError: no backend for ``pipeline``, or it fails to load.
        UnsupportedPipelineError: the pipeline calls no step-end callback, does not offer a tensor
            that is asked for, or cannot do what a callback needs.
        TypeError: something among ``callbacks`` is neither a Callback nor callable.
        ValueError: ``on_sigint`` is another word; two callbacks decide on the same thing, or are
            the same object.
        UnicbError: ``on_sigint`` in another thread than the main one.
    """
    if on_sigint is not None:
        check_sigint(on_sigint)
    backend = backend_for(pipeline)
    offered = offered_tensors(pipeline)
    chosen = offered if tensor_inputs is None else tensor_names(tensor_inputs)
    adapted = tuple(as_callback(callback, chosen) for callback in callbacks)
    # A mapping's order is its insertion order: this drops duplicates and keeps the order.
    needed = tuple(dict.fromkeys(name for callback in adapted for name in callback.tensors))
    missing = [name for name in (*needed, *chosen) if name not in offered]
    if missing:
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} offers no tensor called {missing[0]!r} to callbacks; "
            f"it offers: {', '.join(offered)}"
        )
    refuse_conflicts(adapted)
    facts = facts_for(pipeline)
    # Those that are known to have guidance are known to call it, too.
    if (facts is None or facts.cfg == "none") and hands_on_callback(type(pipeline)):
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} calls no callback itself: it hands it on to a pipeline "
            "inside it; bind that one"
        )
    for callback in adapted:
        callback.on_bind(pipeline, facts)
    if on_sigint is not None:
        check_stoppable(pipeline, facts)
    if early := acting_early(adapted):
        models_to_watch(pipeline, facts, name_of(early[0]))
    tensors = with_batch(needed, offered, facts)
    return Binding(pipeline, backend, facts, adapted, tensors, on_sigint)


#: What has become of a binding's run.
State: TypeAlias = Literal["pending", "running", "finished", "interrupted", "cancelled", "failed"]


class Binding(Mapping[str, Any]):
    """Callbacks tied to a pipeline: the two keyword arguments that its call takes, and a handle
    on the run.

    It serves for one run after another on its pipeline, not for two at once. In a ``with``
    block, whatever a run has left on the pipeline is taken away at the end of the block.

    What is asked of the handle is asked of one run: of the one that is under way, or else of the
    next one, if the pipeline has not been called since :func:`bind`, or has just been called.
    :meth:`interrupt`, :meth:`cancel` and :meth:`wait` may be called in any thread, and as often as
    one likes.
    """

    def __init__(
        self,
        pipeline: Any,
        backend: Backend,
        facts: PipelineFacts | None,
        callbacks: tuple[Callback, ...],
        tensor_inputs: tuple[str, ...],
        on_sigint: OnSigint | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._backend = backend
        self._facts = facts
        self._callbacks = callbacks
        self._tensor_inputs = list(tensor_inputs)
        self._run: Run | None = None
        # Whether a run that has failed, as far as one can see, may go on: a generator's, resumed.
        self._may_resume = False
        self._early = acting_early(callbacks)
        self._first_calls: FirstCalls | None = None
        # Before the run that has begun, and has not ended a step.
        self._earlier: tuple[State, int | None] = ("pending", None)
        self._changed = threading.Condition()
        self._state: State = "pending"
        self._step: int | None = None
        self._request: Literal["interrupt", "cancel"] | None = None
        self._gates: Gates | None = None
        # Of a call that has not ended a step; of a run, it has it itself.
        self._called_at: float | None = None
        self._decoding = Stopwatch()
        self._sigint = None if on_sigint is None else SigintHandler(self, pipeline)

    def __getitem__(self, key: str) -> Any:
        if key not in (CALLBACK, _TENSOR_INPUTS):
            raise KeyError(key)
        self._note_failure()
        if key == _TENSOR_INPUTS:
            return self._tensor_inputs
        self._note_call()
        callback = self._on_step_end  # a new object each time, which dies with the call
        if self._early:
            self._watch_first_calls(callback)
        return callback

    def _note_call(self) -> None:
        """The pipeline is about to be called: a call unpacks the binding just before it starts."""
        self._decoding.drop()
        with self._changed:
            if self._state != "running":
                if self._called_at is not None and self._state == "pending":
                    self._request = None  # it was made of a call that failed before its first step
                elif self._state != "pending":
                    self._state, self._step = "pending", None
                self._called_at = time.monotonic()
        if self._sigint is not None:
            self._sigint.install()

    def _watch_first_calls(self, callback: Callable[..., Any]) -> None:
        models = models_to_watch(self._pipeline, self._facts, name_of(self._early[0]))
        self._ignore_first_calls()
        self._first_calls = FirstCalls(
            self._backend, models, callback, self._first_call, self._note_failure
        )

    def _ignore_first_calls(self) -> None:
        with self._changed:
            watching, self._first_calls = self._first_calls, None
        if watching is not None:
            watching.remove()

    def __iter__(self) -> Iterator[str]:
        return iter((CALLBACK, _TENSOR_INPUTS))

    def __len__(self) -> int:
        return 2

    # A handle on a run is itself and no other, whatever keyword arguments it holds.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        names = ", ".join(map(name_of, self._callbacks))
        return f"<Binding of {type(self._pipeline).__name__}: {names or 'no callbacks'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run = self._run
        if run is not None:
            self._settle(run, "failed")
            run.finish()
        self._remove_gates()
        self._ignore_first_calls()
        if self._sigint is not None:
            self._sigint.remove()

    @property
    def pipeline(self) -> Any:
        """The pipeline that it was made for."""
        return self._pipeline

    @property
    def state(self) -> State:
        """What has become of the run.

        ``"pending"``: no step has ended yet, nor has a callback acted before the first.
        ``"running"``. ``"finished"``: its last step has
        ended. ``"interrupted"``, ``"cancelled"``: it was ended as asked. ``"failed"``: its loop
        ended before its last step otherwise, with an error. The next call of the pipeline makes
        it ``"pending"`` again. Whether a pipeline decodes afterwards is not part of it.
        """
        self._note_failure()
        return self._state

    @property
    def step(self) -> int | None:
        """Index of the last step that has ended, from 0; None before the first has."""
        return self._step

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run has ended, however; also for one that has not begun.

        A call that fails before its first step has ended does not show here.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            Whether it has.

        Raises:
            UnicbError: this is the thread that the run is in, such as in a callback.
        """
        run = self._run
        if run is not None and run.is_calling():
            raise UnicbError("a run cannot wait for its own end: call wait() in another thread")
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self.state in ("pending", "running"):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._changed:
                # Nobody tells of a run that has failed: it is looked after.
                self._changed.wait_for(
                    lambda: self._state not in ("pending", "running"), min(left, _LOOK_SECONDS)
                )
        return True

    def interrupt(self) -> bool:
        """Finish the run at the end of its step, and decode what there is. From any thread.

        Called before the run's first step has ended, or before the pipeline is called, it takes
        effect at the end of the first step. Once a run has ended, it does nothing, and of a run
        that is to be cancelled neither. Where a loop reads no interrupt flag, it runs out without
        computing anything (after the first step alone, one more is computed).

        Returns:
            Whether there is a run to interrupt.

        Raises:
            UnsupportedPipelineError: the pipeline's loop can be stopped in neither way.
        """
        check_stoppable(self._pipeline, self._facts)
        return self._ask("interrupt")

    def cancel(self, now: bool = False) -> bool:
        """End the run at the end of its step by raising :class:`GenerationCancelled` out of the
        pipeline's call; nothing is decoded. From any thread, and when as for :meth:`interrupt`.

        Args:
            now: do not wait for the step's end: raise as soon as the denoiser calls its next
                block, or is called. (Not in the middle of a compiled model.)

        Returns:
            Whether there is a run to cancel.
        """
        asked = self._ask("cancel")
        if asked and now:
            with self._changed:
                if self._request == "cancel" and self._gates is None:
                    self._gates = Gates(
                        self._backend, self._pipeline, self._facts, self._raise_if_ours
                    )
        return asked

    def _ask(self, what: Literal["interrupt", "cancel"]) -> bool:
        self._note_failure()
        with self._changed:
            if self._state not in ("pending", "running"):
                return False
            if self._request != "cancel":
                self._request = what
            return True

    def _on_step_end(
        self, pipeline: Any, index: int, timestep: Any, callback_kwargs: dict[str, Tensor]
    ) -> Outputs:
        run = self._run
        # An index that follows on is that of the run's own loop, in the middle of a pass. To ask
        # for the caller's frame would be a fifth of what a step's end takes in all.
        if run is None or run.over or run.next_index != index or self._may_resume:
            run = self._run_of(pipeline, _getframe(1))
            if run.runs_out:
                outputs = run.run_out(index, callback_kwargs)
                self._decoding.start(outputs)
                return outputs
        try:
            outputs = run.step_end(index, timestep, callback_kwargs)
            self._step = run.index
            if run.next_index is not None and self._request is None:
                return outputs
            with self._changed:  # who asks after this is too late, and is told so
                if self._request == "cancel":
                    raise self._cancelled(run, outputs.get("latents"))
                if self._request is not None:
                    run.request_interrupt()
                self._settle(run, "interrupted" if run.interrupted else "finished")
        except BaseException as error:
            self._settle(run, "cancelled" if isinstance(error, GenerationCancelled) else "failed")
            run.finish()
            raise
        self._decoding.start(outputs)
        if (watching := self._first_calls) is not None:
            watching.watch_end(outputs, run.frame_id)
        run.settle(outputs)
        return outputs

    def _run_of(self, pipeline: Any, frame: FrameType) -> Run:
        """The run whose loop is the frame, or has called it; if there is none, it begins."""
        run = self._run
        if run is not None and not run.over and run.index >= 0 and run.is_of(frame):
            return run  # nobody has put a function between
        frame_id = loop_frame_id(pipeline, frame)
        early = run is not None and run.index < 0 and run.is_calling()
        if run is None or run.over or not (early or run.frame_id == frame_id):
            run = self._begin(pipeline, frame_id)
        if self._early and run.index < 0:
            try:
                self._check_begun(pipeline, early)
            except BaseException:
                self._settle(run, "failed")
                run.finish()
                raise
            run.frame_id = frame_id
        return run

    def _first_call(self) -> Hooked:
        """A model is called: where that is the first call in a loop of ours, the run begins."""
        run = self._run
        if run is not None and run.is_calling():
            return ()
        frame_id = loop_frame_given(self._pipeline, self._on_step_end)
        if frame_id is None:
            return ()
        # The error for the loop of another pipeline is raised at its first step's end.
        owner = loop_locals(frame_id, ["self"]).get("self", self._pipeline)
        if owner is not self._pipeline and hasattr(owner, "_callback_tensor_inputs"):
            return ()
        self._earlier = self._state, self._step
        run = self._begin(self._pipeline, frame_id)
        try:
            return run.before_first_step(self._early)
        except BaseException:
            self._settle(run, "failed")
            run.finish()
            raise

    def _check_begun(self, pipeline: Any, early: bool) -> None:
        """At the end of a run's first step, where callbacks had to act before it."""
        self._check_pipeline(pipeline)
        if not early:
            raise UnicbError(
                f"{name_of(self._early[0])} acts before a run's first step, and the run has been "
                "noticed only now: unpack the binding in each call of the pipeline, as in "
                "pipe(prompt, **callbacks), and hand on its callback as it is"
            )

    def _check_pipeline(self, pipeline: Any) -> None:
        if pipeline is not self._pipeline:
            raise UnicbError(
                f"{self!r} was called by another pipeline, a {type(pipeline).__name__}; "
                "a binding serves the pipeline it was made for: call bind() for the other one"
            )

    def _begin(self, pipeline: Any, frame_id: FrameId) -> Run:
        self._check_pipeline(pipeline)
        with self._changed:
            previous = self._run
            if previous is not None and not previous.over and previous.is_executing():
                raise UnicbError(
                    f"{self!r} is in use by a run that has not ended; "
                    "call bind() once for each of two runs at the same time"
                )
            if previous is not None:
                previous.finish()
            pin_callers()
            # A call may have several loops, one after another.
            self._state, self._step = "running", None
            self._run = Run(
                pipeline,
                self._backend,
                self._facts,
                self._callbacks,
                frame_id,
                time.monotonic() if self._called_at is None else self._called_at,
                self._decoding.seconds,
                self._over,
            )
            self._called_at = None
            self._changed.notify_all()
            return self._run

    def _settle(self, run: Run, state: State) -> None:
        """The run has ended, as far as whoever holds the handle is concerned."""
        with self._changed:
            if self._run is not run or self._state != "running":
                return
            self._state, self._request, self._called_at = state, None, None
            self._may_resume |= state == "failed"
            if run.index < 0 and self._earlier[0] == "finished":
                # Not a loop's first step after all: the denoiser, called after the last one.
                self._state, self._step = self._earlier
            self._changed.notify_all()
        self._remove_gates()
        if state != "finished":  # then a call may have another loop
            self._ignore_first_calls()
        if self._sigint is not None:
            self._sigint.remove()

    def _over(self, run: Run) -> None:
        """Nothing is left of the run."""
        self._settle(run, "failed")  # nothing, where it has ended in another way
        with self._changed:
            if self._run is run:
                self._run = None

    def _note_failure(self) -> None:
        run = self._run
        if run is not None and not run.is_executing():
            run.finish()

    def _remove_gates(self) -> None:
        with self._changed:
            gates, self._gates = self._gates, None
        if gates is not None:
            gates.remove()

    def _raise_if_ours(self) -> None:
        """Before a block of the denoiser, once the run is to be cancelled at once."""
        if self._request != "cancel":
            return
        run = self._run
        if run is not None and not run.over:
            if not run.is_calling():
                return
            error = self._cancelled(run, run.loop_locals(["latents"]).get("latents"))
            self._settle(run, "cancelled")
            run.finish()
            raise error
        if calls_with(self._on_step_end):
            with self._changed:
                self._state, self._request, self._called_at = "cancelled", None, None
                self._changed.notify_all()
            self._remove_gates()
            raise GenerationCancelled(-1, None)

    def _cancelled(self, run: Run, latents: Tensor | None) -> GenerationCancelled:
        if run.index < 0:
            return GenerationCancelled(-1, None)
        ops = self._backend.ops
        host = ops.to_numpy(latents) if self._backend.is_tensor(latents) else None
        return GenerationCancelled(run.index, timestep_number(run.timestep, ops), host)
