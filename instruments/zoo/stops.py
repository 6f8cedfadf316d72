"""Does a stop stop, and what comes of it?

Six runs of the same request from the same noise: two plain ones, the first and the last; one with
``Interrupt`` after step 1; its reference, without unicb, in which a callback puts the latents of
step 1 in place of those of every later step, so that the pipeline decodes them on its own; one
that is cancelled at step 1; and one that is cancelled before its denoiser is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, TypeAlias

import numpy as np

from unicb import Callback, GenerationCancelled, Interrupt, Step, bind
from unicb.errors import UnsupportedPipelineError
from unicb.pipelines import facts_for, num_timesteps_of
from unicb.pipelines.stoppable import models_of, reads_flag, stops_by_flag
from zoo.entry import Entry, Request
from zoo.framework import Framework
from zoo.loops import called, caller
from zoo.measure import Meter, error
from zoo.previews import Array, arrays

#: The step after which runs are stopped.
STOP = 1
#: Classes that decode what the scheduler's step gives beside the latents, or take no latents back
#: from a callback: in the reference, the scheduler answers as at the stop, too.
BY_SCHEDULER = (
    "LatentConsistencyModelImg2ImgPipeline",
    "LatentConsistencyModelPipeline",
    "PRXPipeline",
    "PRXPixelPipeline",
    "SanaSprintImg2ImgPipeline",
    "SanaSprintPipeline",
)
#: Objects, by id, and names of their attributes.
Traces: TypeAlias = set[tuple[int, str]]
_SOUND = "the sound that goes with the video is stopped, too, and the reference's is not"
_PARTS = "the video is made part by part, and parts that had not begun are left as noise"
#: Entries, by class and variant, of which more is decoded than the latents of the stop, and what.
#: Where there is a flag, the run must return what it returns if one sets the flag oneself.
OTHERWISE = {
    "AnyFlowFARPipeline (two chunks)": _PARTS,
    "ChronoEditPipeline (temporal reasoning)": "the frames of its reasoning are decoded as well, "
    "which it would have dropped in a later step",
    "Cosmos2_5_TransferPipeline (two chunks)": _PARTS,
    "HeliosPipeline": _PARTS,
    "HeliosPyramidPipeline": "stages of more resolution begin with noise mixed in",
    "HeliosPyramidPipeline (cfg zero star)": "stages of more resolution begin with noise mixed in",
    "HunyuanVideoFramepackPipeline": _PARTS,
    "HunyuanVideoFramepackPipeline (vanilla)": _PARTS,
    "Kandinsky6TI2VAPipeline": _SOUND,
    "LTX2ConditionPipeline": _SOUND,
    "LTX2DFRPipeline": _SOUND,
    "LTX2ImageToVideoPipeline": _SOUND,
    "LTX2InContextPipeline": _SOUND,
    "LTX2InContextPipeline (all kinds of guidance)": _SOUND,
    "LTX2Pipeline": _SOUND,
    "LTX2Pipeline (all kinds of guidance)": _SOUND,
    "LTX2Pipeline (guidance of the sound alone)": _SOUND,
    "LTXI2VLongMultiPromptPipeline": "the video is made window by window, and what is offered as "
    "its latents is not the window, so that the reference cannot hold it",
    "RFD4ProteinaPipeline": "it denoises two latents, of which the reference holds one",
    "SkyReelsV2DiffusionForcingImageToVideoPipeline (long)": _PARTS,
    "SkyReelsV2DiffusionForcingPipeline (long)": _PARTS,
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline": _PARTS,
    "WanAnimatePipeline (two segments, replacing)": _PARTS,
}


@dataclass(frozen=True)
class Stopped:
    """``Stopped`` says what one class did with one request.

    Attributes:
        verdict: "exact", "otherwise" (it stops, and decodes more than the latents of the stop),
            "refused" (``bind`` refuses to interrupt it; to cancel it is right), "wrong", "failed"
            (the pipeline itself raised), "impossible" (the pipeline cannot do this case) or
            "not built".
        why: the reason, where it is not "exact".
        way: "flag" if its loop reads an interrupt flag, "runs out" if not.
        saved: share of the calls of its denoisers, and of their companions, that the interrupted
            run left out.
    """

    verdict: str
    why: str = ""
    way: str = ""
    saved: float | None = None


class _Watching(Callback):
    """Tell a meter of every step's end, and do something at that of one."""

    def __init__(self, name: str, meter: Meter, at_stop: Any = lambda: None) -> None:
        self.tensors = (name,)
        self.name, self.meter, self.at_stop = name, meter, at_stop
        self.latents: list[Array] = []

    def on_step_end(self, step: Step) -> None:
        self.meter.step_end(step.num_timesteps, step[self.name])
        self.latents.append(step.ops.to_numpy(step[self.name]).copy())
        if len(self.latents) == STOP + 1:
            self.at_stop()


class _Runs:
    """The runs of one request."""

    def __init__(self, entry: Entry, fx: Framework, pipeline: Any, request: Request) -> None:
        self.entry, self.fx, self.pipeline, self.request = entry, fx, pipeline, request
        self.facts = facts_for(pipeline)
        offered = getattr(pipeline, "_callback_tensor_inputs", ("latents",))
        batch_of = "latents" if self.facts is None else self.facts.batch_of
        #: What stands for the latents.
        self.name = batch_of if batch_of in offered else offered[0]
        self.decoded: list[str] = []
        self.meter = self.new_meter()
        self.interrupted: list[Array] = []

    def new_meter(self) -> Meter:
        return Meter(self.fx, self.pipeline, self.facts, self.request.rows)

    def call(self, meter: Meter, callbacks: Any) -> list[Array]:
        """Return all arrays that the pipeline returns with bound callbacks."""
        return self._called(meter, partial(called, self.pipeline, callbacks))

    def _called(self, meter: Meter, run: Callable[[dict[str, Any]], Any]) -> list[Array]:
        self.decoded, self.meter = [], meter
        arguments = {**self.entry.arguments(self.fx, self.pipeline, self.request)}
        with meter.watching(), self._counting_decodes():
            return list(arrays(run(arguments), self.fx))

    @contextmanager
    def _counting_decodes(self) -> Iterator[None]:
        with ExitStack() as undo:
            for name, model in self.pipeline.components.items():
                if self.fx.is_module(model) and hasattr(model, "decode"):
                    undo.callback(setattr, model, "__class__", type(model))
                    model.__class__ = _counted(type(model), self.decoded, name)
            yield

    def without_unicb(
        self, at_stop: str = "", held: Array | None = None
    ) -> tuple[list[Array], list[Array]]:
        """Return what a run returns, and the latents of its steps.

        Args:
            at_stop: "hold": the latents of the stop take the place of all later ones. "flag": the
                pipeline's interrupt flag is set. "": nothing.
            held: latents to hold in place of the latents of the stop; None: those of the stop.
        """
        meter, latents, kept = self.new_meter(), [], []

        def callback(
            pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]
        ) -> dict[str, Any]:
            own = tensors[self.name]
            meter.step_end(num_timesteps_of(pipe), own)
            latents.append(self.fx.backend.ops.to_numpy(own).copy())
            if len(latents) == STOP + 1:
                kept.append(latents[-1] if held is None else held)
                if at_stop == "flag":
                    pipe._interrupt = True
            if at_stop == "hold" and kept and kept[0].shape == latents[-1].shape:
                tensors[self.name] = self.fx.backend.ops.from_numpy(kept[0], own)
            return tensors

        call = caller(self.entry, self.fx, self.pipeline, self.request)

        def run(arguments: dict[str, Any]) -> Any:
            return call(arguments, callback, self.name)

        by_scheduler = at_stop == "hold" and self.entry.name in BY_SCHEDULER
        with _stopped_scheduler(self.pipeline.scheduler) if by_scheduler else nullcontext():
            return self._called(meter, run), latents

    def calls(self, first_step: int = 0) -> int:
        """Count the calls of the loop's models in the last run, from that step on."""
        names = () if self.facts is None else (*self.facts.denoisers, *self.facts.companions)
        steps = self.meter.steps[first_step:]
        return sum(name in names or not names for step in steps for name, _ in step)

    def differs(self, a: list[Array], b: list[Array]) -> bool:
        """Return whether two runs' arrays differ, by more than those of two runs of the same
        may."""
        if len(a) != len(b):
            return True
        return any(not self._same(x, y) for x, y in zip(a, b, strict=True))

    def _same(self, a: Array, b: Array) -> bool:
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if a.tobytes() == b.tobytes():
            return True
        if not self.fx.repeats_to:
            return False
        if a.dtype == np.uint8:  # a picture, rounded
            return int(np.abs(a.astype(int) - b.astype(int)).max()) <= 1
        return a.dtype.kind == "f" and error(a, b) <= self.fx.repeats_to

    def traces(self) -> Traces:
        """Return the attributes that there are on the pipeline's models, their parts and its
        scheduler."""
        parts = [*self.pipeline.components.values(), getattr(self.pipeline, "scheduler", None)]
        modules = [m for part in parts if self.fx.is_module(part) for m in _modules(part)]
        return {(id(m), name) for m in [*modules, parts[-1]] if m is not None for name in vars(m)}


def _counted(base: Any, calls: list[str], name: str) -> Any:
    def decode(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return base.decode(self, *args, **kwargs)

    return type(base.__name__, (base,), {"decode": decode, "__module__": base.__module__})


@contextmanager
def _stopped_scheduler(scheduler: Any) -> Iterator[None]:
    """Have the scheduler's steps after the stop answer as that of the stop."""
    outputs: list[Any] = []

    @wraps(scheduler.step)  # pipelines look at its signature
    def step(*args: Any, **kwargs: Any) -> Any:
        if len(outputs) <= STOP:
            outputs.append(type(scheduler).step(scheduler, *args, **kwargs))
        return outputs[-1]

    scheduler.step = step
    try:
        yield
    finally:
        del scheduler.step


def _modules(module: Any) -> Iterator[Any]:
    if hasattr(module, "modules"):
        yield from module.modules()
    else:
        yield from (cell for _, cell in module.cells_and_names())


def measure(entry: Entry, fx: Framework, pipeline: Any, request: Request) -> Stopped:
    """Measure one class with one request."""
    runs = _Runs(entry, fx, pipeline, request)
    way = "flag" if stops_by_flag(pipeline) else "runs out"
    try:
        plain, latents = runs.without_unicb()
    except Exception as failure:
        return Stopped("failed", f"{type(failure).__name__}: {failure}", way)
    if len(latents) <= STOP + 1:
        return Stopped("failed", f"it has {len(latents)} steps: too few to stop", way)
    whole = runs.calls()
    before = runs.traces()
    refusal, otherwise, saved, why = "", "", None, ""
    try:
        bind(pipeline, _Watching(runs.name, runs.new_meter()))
    except UnsupportedPipelineError as refused:
        return Stopped("refused", str(refused), way)
    try:
        why = _interrupted(runs, latents, before)
        saved = 1 - runs.calls() / whole if whole else None
        otherwise = "" if why else _unlike_its_reference(runs, way == "flag")
        why = why or ("" if otherwise else _not_the_denoised(runs))
    except UnsupportedPipelineError as refused:
        refusal = str(refused)
    except Exception as failure:
        why = f"interrupted: {type(failure).__name__}: {failure}"
    try:
        why = why or _cancelled(runs, latents, before) or _cancelled_now(runs, before)
        if not why:
            again, _ = runs.without_unicb()
            why = "a plain run afterwards differs from one before" * runs.differs(plain, again)
    except Exception as failure:
        why = f"cancelled: {type(failure).__name__}: {failure}"
    if why:
        return Stopped("wrong", why, way, saved)
    verdict = "refused" if refusal else "otherwise" if otherwise else "exact"
    return Stopped(verdict, refusal or otherwise, way, saved)


def _left(when: str, before: Traces, runs: _Runs) -> str:
    new = sorted({name for _, name in runs.traces() - before})
    return f"{when}, it leaves {', '.join(new)}" if new else ""


def _interrupted(runs: _Runs, latents: list[Array], before: Traces) -> str:
    """Say why the interrupted run is not right; "" if it is."""
    watching = _Watching(runs.name, runs.new_meter())
    callbacks = bind(runs.pipeline, watching, Interrupt(STOP, picture="latents"))
    runs.interrupted = runs.call(watching.meter, callbacks)
    if left := _left("interrupted", before, runs):  # before the binding is asked, which would see
        return left
    if callbacks.state != "interrupted" or callbacks.step != STOP:
        return f"its binding is {callbacks.state!r} after step {callbacks.step}"
    if len(watching.latents) != STOP + 1:
        return f"interrupted after step {STOP}, {len(watching.latents)} steps end"
    if runs.differs(watching.latents, latents[: STOP + 1]):
        return "interrupted, its steps before the stop are other ones"
    if later := runs.calls(STOP + 1):
        return f"interrupted, it calls its denoisers {later} times more"
    return ""


def _unlike_its_reference(runs: _Runs, flag: bool) -> str:
    """Say what the interrupted run returned, if not the decoded latents of the stop; "" if those.

    Raises:
        AssertionError: nobody knows why, or it is not what the pipeline's own flag makes of it.
    """
    if not runs.differs(runs.interrupted, runs.without_unicb("hold")[0]):
        return ""
    by_flag = runs.without_unicb("flag")[0] if flag else runs.interrupted
    assert not runs.differs(runs.interrupted, by_flag), "not what the pipeline's own flag gives"
    known = OTHERWISE.get(runs.entry.title, "")
    assert known, "what is returned is not what the latents of the stop decode to"
    return known


class _KeepDenoised(Callback):
    tensors = ("latents",)

    def __init__(self) -> None:
        self.last: Array | None = None

    def on_step_end(self, step: Step) -> None:
        x0 = step.denoised()
        self.last = None if x0 is None else step.ops.to_numpy(x0)


def _not_the_denoised(runs: _Runs) -> str:
    """Say why an interrupted run does not return what its denoised latents decode to; "" if it
    does, or there are none."""
    if runs.name != "latents" or runs.entry.name in BY_SCHEDULER:
        return ""
    keep = _KeepDenoised()
    out = runs.call(runs.new_meter(), bind(runs.pipeline, keep, Interrupt(STOP)))
    expected = runs.interrupted
    if keep.last is not None:
        expected = runs.without_unicb("hold", keep.last)[0]
    if runs.differs(out, expected):
        return "interrupted, it does not return what its denoised latents decode to"
    return ""


def _cancelled(runs: _Runs, latents: list[Array], before: Traces) -> str:
    """Say why the cancelled run is not right; "" if it is."""
    decoded: list[int] = []

    def cancel() -> None:
        decoded.append(len(runs.decoded))
        callbacks.cancel()

    watching = _Watching(runs.name, runs.new_meter(), cancel)
    callbacks = bind(runs.pipeline, watching)
    try:
        runs.call(watching.meter, callbacks)
    except GenerationCancelled as cancelled:
        error = cancelled
    else:
        return "cancelled, it returns"
    if left := _left("cancelled", before, runs):
        return left
    if callbacks.state != "cancelled" or error.step != STOP:
        return f"its binding is {callbacks.state!r}, cancelled after step {error.step}"
    if decoded != [len(runs.decoded)]:
        return "cancelled, it decodes"
    if runs.calls(STOP + 1):
        return "cancelled, it calls its denoisers"
    if (
        error.latents is not None
        and runs.name == "latents"
        and runs.differs([error.latents], [latents[STOP]])
    ):
        return "the error has other latents than those of the step"
    return ""


def _cancelled_now(runs: _Runs, before: Traces) -> str:
    """Say why a run that is to be cancelled at once, before it begins, is not right; "" if it
    is."""
    watching = _Watching(runs.name, runs.new_meter())
    callbacks = bind(runs.pipeline, watching)
    callbacks.cancel(now=True)
    try:
        runs.call(watching.meter, callbacks)
    except GenerationCancelled as cancelled:
        error = cancelled
    else:
        return "cancelled at once, it returns"
    if left := _left("cancelled at once", before, runs):
        return left
    # Where no denoiser is known, it is the first step's end that raises.
    at_once = bool(models_of(runs.pipeline, runs.facts))
    if at_once and (error.step != -1 or runs.calls()):
        return f"cancelled at once, it calls its denoisers {runs.calls()} times"
    return ""


def bare_class(kind: type) -> Stopped:
    """Return the outcome of a class that no entry builds, by an instance without any parts."""
    way = "flag" if reads_flag(kind) else "runs out"
    try:
        bind(kind.__new__(kind), Interrupt(STOP))
    except UnsupportedPipelineError as refused:
        return Stopped("refused", str(refused), way)
    return Stopped("not built", "nobody has, so far", way)
