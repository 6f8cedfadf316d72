"""Call a pipeline, whether its loop calls a step-end callback or only steps its scheduler."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from zoo.entry import Around, Entry, Request
from zoo.framework import Framework

#: In the signature of the frameworks' step-end callbacks.
StepEnd = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]
#: Calls a pipeline: with arguments, a callback, and the name of the tensor that it gets.
Caller = Callable[..., Any]
#: How many steps each pass of a call takes, as it was seen to.
_PASSES: WeakKeyDictionary[Any, dict[Request, list[int]]] = WeakKeyDictionary()


def calls_back(kind: type) -> bool:
    """Return whether the call of a class takes a step-end callback."""
    call: Any = kind.__call__
    return "callback_on_step_end" in inspect.signature(call).parameters


def called(pipeline: Any, callbacks: Any, arguments: dict[str, Any]) -> Any:
    """Call a pipeline with callbacks that were bound to it."""
    if calls_back(type(pipeline)):
        return pipeline(**arguments, **callbacks)
    return callbacks(**arguments)


def caller(entry: Entry, fx: Framework, pipeline: Any, request: Request) -> Caller:
    """Return a function that calls a pipeline without unicb, with arguments for that request. The
    callback gets the tensor of that name at each step's end; what it returns goes back into the
    loop. While it runs, ``pipeline.num_timesteps`` is right.

    A loop that calls no callback is run once before, to count its steps.
    """
    if calls_back(type(pipeline)):

        def call(arguments: dict[str, Any], callback: StepEnd, name: str = "latents") -> Any:
            return pipeline(
                **arguments,
                callback_on_step_end=callback,
                callback_on_step_end_tensor_inputs=[name],
            )

        return call
    counts = _PASSES.setdefault(pipeline, {})
    if request not in counts:
        counting = _Stepped(pipeline)
        with counting.watching():
            pipeline(**entry.arguments(fx, pipeline, request))
        counts[request] = counting.passes
    rows = request.rows if entry.twice else None

    def step(arguments: dict[str, Any], callback: StepEnd, name: str = "latents") -> Any:
        with _Stepped(pipeline, callback, counts[request], rows, entry.around).watching():
            return pipeline(**arguments)

    return step


class _Stepped:
    """Replace a scheduler; a pass begins when its timesteps are set.

    Args:
        callback: called at each step; None: steps are only counted.
        counts: number of steps of each pass.
        rows: number of rows of the latents, if the loop may have each twice.
        around: what the loop does to its latents around the step.
    """

    def __init__(
        self,
        pipeline: Any,
        callback: StepEnd | None = None,
        counts: Sequence[int] = (),
        rows: int | None = None,
        around: Around | None = None,
    ) -> None:
        self.pipeline, self.callback = pipeline, callback
        self.counts, self.rows, self.around = counts, rows, around
        self.passes: list[int] = []
        self._begins = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        scheduler, watch = self.pipeline.scheduler, self
        base = type(scheduler)

        @wraps(base.step)  # pipelines look at its signature
        def step(self: Any, *args: Any, **kwargs: Any) -> Any:
            return watch._ended(base.step(self, *args, **kwargs), args, kwargs)

        @wraps(base.set_timesteps)
        def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
            watch._begins = True
            return base.set_timesteps(self, *args, **kwargs)

        spied = {"step": step, "set_timesteps": set_timesteps, "__module__": base.__module__}
        scheduler.__class__ = type(base.__name__, (base,), spied)
        try:
            yield
        finally:
            scheduler.__class__ = base
            vars(self.pipeline).pop("num_timesteps", None)

    def _loop_locals(self) -> dict[str, Any]:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_locals.get("self") is not self.pipeline:
            frame = frame.f_back
        assert frame is not None
        return frame.f_locals

    def _ended(self, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._begins:
            self.passes.append(0)
            self._begins = False
        index = self.passes[-1]
        self.passes[-1] += 1
        if self.callback is None:
            return out
        vars(self.pipeline)["num_timesteps"] = self.counts[len(self.passes) - 1]
        latents = out[0] if isinstance(out, tuple) else out.prev_sample
        twice = self.rows is not None and len(latents) == 2 * self.rows
        own = latents[: self.rows] if twice else latents
        if self.around is not None:
            values = self._loop_locals()
            own = self.around.kept(values, latents)
        timestep = kwargs.get("timestep", args[1] if len(args) > 1 else None)
        new = self.callback(self.pipeline, index, timestep, {"latents": own})["latents"]
        if new is own:
            return out
        if self.around is not None:
            new = self.around.to_step(values, new)
        if twice:
            latents[: len(own)] = new
            latents[len(own) :] = new
            return out
        if isinstance(out, tuple):
            return (new, *out[1:])
        return type(out)(**{**out, "prev_sample": new})
