"""``bind``: callbacks and a pipeline, checked before the run and tied together for it."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from unicb._frames import loop_frame_id
from unicb._run import Outputs, Run
from unicb.backend import Backend, backend_for
from unicb.callback import Callback, FunctionCallback, PlainFunction
from unicb.errors import GenerationCancelled, UnicbError, UnsupportedPipelineError
from unicb.ops import Tensor
from unicb.pipelines import (
    PipelineFacts,
    facts_for,
    num_timesteps_of,
    require_interrupt_flag,
)

_CALLBACK = "callback_on_step_end"
_TENSOR_INPUTS = "callback_on_step_end_tensor_inputs"


def bind(
    pipeline: Any,
    *callbacks: Callback | PlainFunction,
    tensor_inputs: Sequence[str] | None = None,
) -> Binding:
    """Tie callbacks to a pipeline: ``pipe(prompt, **bind(pipe, CFGCutoff(0.4)))``.

    Args:
        pipeline: a pipeline of a framework for which a backend is installed.
        callbacks: :class:`Callback` objects, and plain functions in the frameworks' signature
            ``(pipeline, step_index, timestep, callback_kwargs)``, called in this order.
        tensor_inputs: names of the tensors that the plain functions are handed; without it,
            every tensor that the pipeline offers.

    Raises:
        BackendNotFoundError, BackendLoadError: no backend for ``pipeline``, or it fails to load.
        UnsupportedPipelineError: the pipeline calls no step-end callback, does not offer a tensor
            that is asked for, or cannot do what a callback needs.
        TypeError: something among ``callbacks`` is neither a Callback nor callable.
    """
    backend = backend_for(pipeline)
    offered = _offered_tensors(pipeline)
    chosen = offered if tensor_inputs is None else _names(tensor_inputs)
    adapted = tuple(_as_callback(callback, chosen) for callback in callbacks)
    # A mapping's order is its insertion order: this drops duplicates and keeps the order.
    needed = tuple(dict.fromkeys(name for callback in adapted for name in callback.tensors))
    missing = [name for name in (*needed, *chosen) if name not in offered]
    if missing:
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} offers no tensor called {missing[0]!r} to callbacks; "
            f"it offers: {', '.join(offered)}"
        )
    _refuse_two_owners(adapted)
    facts = facts_for(pipeline)
    for callback in adapted:
        callback.on_bind(pipeline, facts)
    return Binding(pipeline, backend, facts, adapted, _with_batch(needed, offered, facts))


def _offered_tensors(pipeline: Any) -> tuple[str, ...]:
    kind = type(pipeline)
    offered = getattr(pipeline, "_callback_tensor_inputs", None)
    if _CALLBACK not in inspect.signature(kind.__call__).parameters:
        raise UnsupportedPipelineError(
            f"{kind.__name__} calls no callback at the end of a step: its __call__ takes no "
            f"{_CALLBACK}"
        )
    if offered is None:
        raise UnsupportedPipelineError(
            f"{kind.__name__} does not say what it offers to callbacks. If it hands them on to a "
            "pipeline inside it, bind that one: pipe(prompt, **bind(pipe.decoder_pipe, ...))"
        )
    return tuple(offered)


def _names(tensor_inputs: Sequence[str]) -> tuple[str, ...]:
    if isinstance(tensor_inputs, str) or not all(isinstance(name, str) for name in tensor_inputs):
        raise TypeError(
            f"tensor_inputs takes a list of names, not {tensor_inputs!r}; "
            'for one tensor write ["latents"]'
        )
    return tuple(tensor_inputs)


def _as_callback(callback: Any, tensors: tuple[str, ...]) -> Callback:
    if isinstance(callback, Callback):
        if isinstance(callback.tensors, str):
            raise TypeError(
                f"{type(callback).__name__}.tensors is the string {callback.tensors!r}; "
                f"it must be a tuple of names: ({callback.tensors!r},)"
            )
        return callback
    if isinstance(callback, type):
        raise TypeError(
            f"bind() takes callback objects, and {callback.__name__} is a class: "
            f"write {callback.__name__}(...)"
        )
    if not callable(callback):
        raise TypeError(
            f"bind() takes Callback objects and functions, not a {type(callback).__qualname__} "
            f"({callback!r})"
        )
    return FunctionCallback(callback, tensors)


def _refuse_two_owners(callbacks: tuple[Callback, ...]) -> None:
    owners: dict[str, str] = {}
    for callback in callbacks:
        for thing in callback.owns:
            name = type(callback).__name__
            if thing in owners:
                raise ValueError(
                    f"two callbacks of one binding both decide on {thing}: a {owners[thing]} and a "
                    f"{name}; keep one of them"
                )
            owners[thing] = name


def _with_batch(
    needed: tuple[str, ...], offered: tuple[str, ...], facts: PipelineFacts | None
) -> tuple[str, ...]:
    """The run itself reads the batch size off the latents; handing them over costs nothing."""
    name = "latents" if facts is None else facts.batch_of
    return needed if name in needed or name not in offered else (*needed, name)


class Binding(Mapping[str, Any]):
    """Callbacks tied to a pipeline: the two keyword arguments that its call takes, and a handle
    on the run.

    It serves for one run after another on its pipeline, not for two at once. In a ``with``
    block, whatever a run has left on the pipeline is taken away at the end of the block.
    """

    def __init__(
        self,
        pipeline: Any,
        backend: Backend,
        facts: PipelineFacts | None,
        callbacks: tuple[Callback, ...],
        tensor_inputs: tuple[str, ...],
    ) -> None:
        self._pipeline = pipeline
        self._backend = backend
        self._facts = facts
        self._callbacks = callbacks
        self._keywords = {_CALLBACK: self._on_step_end, _TENSOR_INPUTS: list(tensor_inputs)}
        self._run: Run | None = None
        self._lock = threading.Lock()
        # Whether a run is about to start or under way, as far as can be known: a call unpacks
        # the binding just before it starts, and its first step may take long.
        self._armed = True
        self._interrupt_requested = False
        self._cancel_requested = False

    def __getitem__(self, key: str) -> Any:
        value = self._keywords[key]
        if self._run is not None and self._run.over:
            self._run = None  # it has failed, or was abandoned
        self._armed = True
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._keywords)

    def __len__(self) -> int:
        return len(self._keywords)

    # A handle on a run is itself and no other, whatever keyword arguments it holds.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        names = ", ".join(
            callback._name() if isinstance(callback, FunctionCallback) else type(callback).__name__
            for callback in self._callbacks
        )
        return f"<Binding of {type(self._pipeline).__name__}: {names or 'no callbacks'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._run is not None:
            self._end(self._run)

    def interrupt(self) -> bool:
        """Finish the run at the end of its step, and decode what there is. From any thread.

        Called before the run's first step has ended, or before the first run, it takes effect at
        the end of the first step. Once a run has ended, it does nothing.

        Returns:
            Whether there is a run to interrupt.

        Raises:
            UnsupportedPipelineError: the pipeline has no interrupt flag.
        """
        require_interrupt_flag(self._pipeline)
        self._interrupt_requested = self._has_run()
        return self._interrupt_requested

    def cancel(self) -> bool:
        """End the run at the end of its step by raising :class:`GenerationCancelled` out of the
        pipeline's call; nothing is decoded. From any thread, and when as for :meth:`interrupt`.

        Returns:
            Whether there is a run to cancel.
        """
        self._cancel_requested = self._has_run()
        return self._cancel_requested

    def _has_run(self) -> bool:
        """Whether a run is about to start or under way."""
        return self._armed and not (self._run is not None and self._run.over)

    def _on_step_end(
        self, pipeline: Any, index: int, timestep: Any, callback_kwargs: dict[str, Tensor]
    ) -> Outputs:
        frame_id = loop_frame_id(pipeline, sys._getframe(1))
        run = self._run
        if run is None or run.over or run.frame_id != frame_id:
            run = self._begin(pipeline, frame_id)
        try:
            outputs = run.step_end(index, timestep, callback_kwargs)
            if self._cancel_requested:
                raise self._cancelled(run, timestep, outputs)
            if self._interrupt_requested:
                run.request_interrupt()
        except BaseException:
            self._end(run)
            raise
        if run.interrupted or run.index + 1 >= num_timesteps_of(pipeline):
            self._end(run)
        return outputs

    def _begin(self, pipeline: Any, frame_id: int) -> Run:
        if pipeline is not self._pipeline:
            raise UnicbError(
                f"{self!r} was called by another pipeline, a {type(pipeline).__name__}; "
                "a binding serves the pipeline it was made for: call bind() for the other one"
            )
        with self._lock:
            previous = self._run
            if previous is not None and previous.is_executing():
                raise UnicbError(
                    f"{self!r} is in use by a run that has not ended; "
                    "call bind() once for each of two runs at the same time"
                )
            if previous is not None:
                previous.finish()
            self._armed = True  # a call may have several loops, one after another
            self._run = Run(pipeline, self._backend, self._facts, self._callbacks, frame_id)
            return self._run

    def _end(self, run: Run) -> None:
        self._armed = False
        self._interrupt_requested = False
        self._cancel_requested = False
        if self._run is run:
            self._run = None
        run.finish()

    def _cancelled(self, run: Run, timestep: Any, outputs: Outputs) -> GenerationCancelled:
        latents = outputs.get("latents")
        host = None if latents is None else self._backend.ops.to_numpy(latents)
        return GenerationCancelled(run.index, float(timestep), host)
