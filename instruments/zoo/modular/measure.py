"""Measure what one modular pipeline does with unicb: each run against one without, from the same
noise.

- *steps*: a bound callback that only looks changes nothing, to the bit, and sees each step once;
- *edit*: latents that a callback changes are what the loop goes on with, to the bit: the reference
  changes them in a ``loop_step`` of its own;
- *cut*: the reference's guider combines the conditional prediction with itself after the cut;
- *schedule*: the reference has a guider of that scale from the beginning;
- *rule*: plain guidance of that scale by a rule, against the same;
- *stop*: the reference's ``loop_step`` does nothing after the stop;
- *preview*: at the last step, every channel is where it is in the latents that the call returns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from unicb import (
    Callback,
    CFGCutoff,
    GuidanceRule,
    GuidanceSchedule,
    Interrupt,
    RuleStep,
    Step,
    bind,
)
from unicb._outputs import with_part
from unicb.errors import UnsupportedPipelineError
from unicb.pipelines import facts_for
from unicb.pipelines.modular import modular_loops
from unicb.pipelines.target import Target
from zoo.entry import CASES, Request
from zoo.framework import Framework
from zoo.measure import EXACT, error
from zoo.modular.entry import ModularEntry
from zoo.previews import SAME, Watched

#: After this step guidance is cut, latents are changed, or the run is stopped.
AT = 1
SCALE = 3.0
WHAT = ("steps", "edit", "cut", "schedule", "rule", "stop", "preview")
GUIDED = ("cut", "schedule", "rule")
Array = npt.NDArray[Any]


@dataclass
class Outcomes:
    """``Outcomes`` says what came of one class and one request.

    Attributes:
        verdicts: "exact", "otherwise", "refused", "wrong", "no guidance" or "failed", by what was
            tried.
        why: the reasons of those that are not exact.
        saved: the share of the denoiser's calls that the steps after the cut leave out.
    """

    verdicts: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    saved: float | None = None


class _Look(Callback):
    """Sees each step, and changes the latents of one."""

    tensors = ("latents",)

    def __init__(self, edits: bool = False) -> None:
        self.steps: list[tuple[int, int]] = []
        self._edits = edits

    def on_step_end(self, step: Step) -> None:
        self.steps.append((step.index, step.num_timesteps))
        if self._edits and step.index == AT:
            step["latents"] = step["latents"] * 0.5


class _Plain(GuidanceRule):
    """Classifier-free guidance."""

    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: RuleStep) -> Any:
        return unconditional + (conditional - unconditional) * scale


class Measured:
    """The runs of one class and one request.

    Args:
        entry: the class.
        fx: the framework.
        request: how it is called.
    """

    def __init__(self, entry: ModularEntry, fx: Framework, request: Request) -> None:
        self._entry, self._fx, self._request = entry, fx, request
        self._pipeline = entry.build(fx)
        self.found = Outcomes()

    def all(self) -> Outcomes:
        """Try everything."""
        try:
            target = _target(self._pipeline, self._fx)
            plain = self._run(self._pipeline)
        except UnsupportedPipelineError as refusal:
            return self._every("refused", str(refusal))
        except Exception as failure:
            return self._every("failed", f"{type(failure).__name__}: {failure}")
        facts = target.facts
        guided = facts is not None and facts.cfg != "none"
        for what in WHAT:
            if what in GUIDED and not guided:
                self.found.verdicts[what] = "no guidance"
                self.found.why[what] = "" if facts is None else facts.why_none
                continue
            try:
                why = getattr(self, f"_{what}")(plain)
                self.found.verdicts[what] = "wrong" if why else "exact"
                if why and what == "stop" and self._entry.stops_otherwise:
                    why, self.found.verdicts[what] = self._entry.stops_otherwise, "otherwise"
            except UnsupportedPipelineError as refusal:
                why, self.found.verdicts[what] = str(refusal), "refused"
            except Exception as failure:
                why = f"{type(failure).__name__}: {failure}"
                self.found.verdicts[what] = "wrong"
            if why:
                self.found.why[what] = why
        return self.found

    def _every(self, verdict: str, why: str) -> Outcomes:
        self.found.verdicts = dict.fromkeys(WHAT, verdict)
        self.found.why = dict.fromkeys(WHAT, why)
        return self.found

    def _run(self, call: Callable[..., Any], **more: Any) -> Array:
        """Return the latents of a call, whether it is of the pipeline or of a binding."""
        arguments = {**self._entry.arguments(self._fx, self._request), **more}
        found = call(**arguments, output="latents")
        to_numpy = self._fx.backend.ops.to_numpy
        items = found if isinstance(found, list | tuple) else [found]
        return np.concatenate([np.asarray(to_numpy(x)) for x in items])

    @contextmanager
    def _cut_by_hand(self) -> Iterator[None]:
        """Make the calls in the block the reference of a cut."""
        unguided = self._entry.unguided
        if unguided is None:
            with _combining(self._pipeline, _with_itself):
                yield
            return

        with _before_steps(self._pipeline, lambda state, i: i > AT and unguided(state, i)):
            yield

    def _steps(self, plain: Array) -> str:
        look, taken = _Look(), list[int]()

        def counted(index: int, stepped: Any) -> Any:
            taken.append(index)
            return stepped

        with _stepping(self._pipeline, counted):
            self._run(self._pipeline)
        got = self._run(bind(self._pipeline, look))
        if [index for index, _ in look.steps] != taken:
            return f"it saw the steps {look.steps}, of {taken}"
        if any(index >= count for index, count in look.steps):
            return f"it counted the steps as {look.steps}"
        return _differs("bound, it gives other latents", got, plain, 0.0)

    def _edit(self, plain: Array) -> str:
        def edited(index: int, stepped: Any) -> Any:
            return stepped * 0.5 if index == AT else stepped

        with _stepping(self._pipeline, edited):
            expected = self._run(self._pipeline)
        if error(plain, expected) < EXACT:
            return "the edit changes nothing"
        got = self._run(bind(self._pipeline, _Look(edits=True)))
        return _differs("an edit does not reach the loop", got, expected, 0.0)

    def _cut(self, plain: Array) -> str:
        calls = _Calls(self._fx, self._pipeline)
        with calls.counted():
            whole = self._run(self._pipeline)
        before = calls.count
        with self._cut_by_hand():
            expected = self._run(self._pipeline)
        if error(whole, expected) < 10 * EXACT:
            return "guidance does nothing here"
        callbacks = bind(self._pipeline, CFGCutoff(cutoff_step_index=AT))
        with calls.counted():
            got = self._run(callbacks)
        self.found.saved = 1 - calls.count / before
        if calls.count >= before:
            return f"it saves nothing: {calls.count} calls of the denoiser, of {before}"
        why = _differs("the cut differs from its reference", got, expected, EXACT)
        after = self._run(self._pipeline)
        return why or _differs("a plain call afterwards differs from one before", after, plain, 0.0)

    def _schedule(self, plain: Array) -> str:
        expected = self._scaled()
        if error(plain, expected) < 10 * EXACT:
            return "another scale does nothing here"
        got = self._run(bind(self._pipeline, GuidanceSchedule([(0.0, SCALE)])))
        return _differs("the schedule differs from a guider of its scale", got, expected, EXACT)

    def _rule(self, plain: Array) -> str:
        got = self._run(bind(self._pipeline, _Plain(SCALE)))
        with _combining(self._pipeline, _plainly):
            expected = self._scaled()
        return _differs("the rule differs from guidance of its scale", got, expected, EXACT)

    def _scaled(self) -> Array:
        """Return a run with another scale."""
        if self._entry.scaled is not None:
            return self._run(self._pipeline, **self._entry.scaled(SCALE, self._request))
        guiders = _guiders(self._pipeline)
        before = [guider.guidance_scale for guider in guiders]
        try:
            for guider in guiders:
                guider.guidance_scale = SCALE
            return self._run(self._pipeline)
        finally:
            for guider, scale in zip(guiders, before, strict=True):
                guider.guidance_scale = scale

    def _stop(self, plain: Array) -> str:
        with _stopped(self._pipeline):
            expected = self._run(self._pipeline)
        got = self._run(bind(self._pipeline, Interrupt(AT, picture="latents")))
        return _differs("a stopped run gives something else", got, expected, 0.0)

    def _preview(self, plain: Array) -> str:
        video = self._as_video(plain)
        watched = Watched(video.shape[-1], [plain])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._run(bind(self._pipeline, *watched.previews))
        ours = [one.message for one in caught if issubclass(one.category, RuntimeWarning)]
        if ours:
            return str(ours[0])
        alike = watched.last_agreement(video)
        if alike < SAME:
            return f"it shows something else: correlation {alike:.3f}"
        return "" if watched.colours_agree() else "its colours are others"

    def _as_video(self, latents: Array) -> Array:
        """Return the latents that a call returns, as ``[rows, frames, height, width,
        channels]``."""
        rows = len(latents)
        if self._entry.cells:
            return latents.reshape(rows, *self._entry.cells, latents.shape[-1])
        if latents.ndim == 5:
            return np.moveaxis(latents, 1, -1)
        if self._entry.patched:
            rows, channels, height, width = latents.shape
            split = latents.reshape(rows, channels // 4, 2, 2, height, width)
            latents = split.transpose(0, 1, 4, 2, 5, 3).reshape(rows, -1, 2 * height, 2 * width)
        return np.moveaxis(latents[:, :, None], 1, -1)


def _target(pipeline: Any, fx: Framework) -> Target:
    return Target(pipeline, fx.backend, facts_for(pipeline))


class _Calls:
    """Count the calls of a pipeline's denoisers."""

    def __init__(self, fx: Framework, pipeline: Any) -> None:
        self._fx, self.count = fx, 0
        target = _target(pipeline, fx)
        names = target.facts.denoisers if target.facts is not None else ()
        self._models = [x for name in names if (x := getattr(pipeline, name, None)) is not None]

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the calls in the block, from 0."""
        self.count = 0

        def around(
            call: Callable[..., Any], args: tuple[Any, ...], words: Mapping[str, Any]
        ) -> Any:
            self.count += 1
            return call(*args, **words)

        removers = [self._fx.backend.hook(model, around) for model in self._models]
        try:
            yield
        finally:
            for remove in removers:
                remove()


@contextmanager
def _stepping(pipeline: Any, made: Callable[[int, Any], Any]) -> Iterator[None]:
    """Have each step in the block go on with what ``made`` makes of its index and its latents."""
    loops = modular_loops(pipeline)
    assert loops is not None
    if loops.inner is not None:
        with _scheduler_stepping(pipeline.scheduler, made):
            yield
        return

    def around(step: Callable[..., Any], components: Any, state: Any, **words: Any) -> Any:
        components, state = step(components, state, **words)
        state.latents = made(words["i"], state.latents)
        return components, state

    with _loop_steps(loops.loops, around):
        yield


@contextmanager
def _stopped(pipeline: Any) -> Iterator[None]:
    """Have the steps after a stop do nothing in the block, those of later loops included."""
    loops = modular_loops(pipeline)
    assert loops is not None
    if loops.inner is not None:
        with _scheduler_stepping(pipeline.scheduler, None):
            yield
        return

    def around(step: Callable[..., Any], components: Any, state: Any, **words: Any) -> Any:
        return (components, state) if words["i"] > AT else step(components, state, **words)

    with _loop_steps(loops.loops, around):
        yield


@contextmanager
def _before_steps(pipeline: Any, act: Callable[[Any, int], object]) -> Iterator[None]:
    """Begin each step in the block with ``act(state, index)``."""
    loops = modular_loops(pipeline)
    assert loops is not None

    def around(step: Callable[..., Any], components: Any, state: Any, **words: Any) -> Any:
        act(state, words["i"])
        return step(components, state, **words)

    with _loop_steps(loops.loops, around):
        yield


@contextmanager
def _loop_steps(loops: Iterable[Any], around: Callable[..., Any]) -> Iterator[None]:
    for loop in loops:
        vars(loop)["loop_step"] = partial(around, loop.loop_step)
    try:
        yield
    finally:
        for loop in loops:
            del vars(loop)["loop_step"]


@contextmanager
def _scheduler_stepping(scheduler: Any, made: Callable[[int, Any], Any] | None) -> Iterator[None]:
    """Do the same by the scheduler. None for ``made``: it leaves its sample as it is after a
    stop."""
    plain = scheduler.step
    timesteps, index, last = None, 0, None

    def step(output: Any, timestep: Any, sample: Any, **words: Any) -> Any:
        nonlocal timesteps, index, last
        if last is not None:
            return (sample, *last)
        if scheduler.timesteps is not timesteps:
            timesteps, index = scheduler.timesteps, 0
        latents, *others = plain(output, timestep, sample, **words)
        index += 1
        if made is not None:
            return (made(index - 1, latents), *others)
        last = others if index > AT else None
        return (latents, *others)

    scheduler.step = step
    try:
        yield
    finally:
        del scheduler.step


@contextmanager
def _combining(pipeline: Any, combine: Callable[..., Any]) -> Iterator[None]:
    """Have guiders combine by ``combine(guider, formula, pred_cond, pred_uncond)`` in the block."""
    guiders = _guiders(pipeline)
    names = ["forward" if hasattr(guider, "forward") else "construct" for guider in guiders]
    for guider, name in zip(guiders, names, strict=True):
        vars(guider)[name] = partial(combine, guider, getattr(guider, name))
    try:
        yield
    finally:
        for guider, name in zip(guiders, names, strict=True):
            del vars(guider)[name]


def _with_itself(
    guider: Any, formula: Any, pred_cond: Any, pred_uncond: Any = None, **more: Any
) -> Any:
    """Return the conditional prediction in the place of the unconditional one, after the cut."""
    is_cut = guider._step > AT and pred_uncond is not None
    return formula(pred_cond, pred_cond if is_cut else pred_uncond, **more)


def _plainly(guider: Any, formula: Any, pred_cond: Any, pred_uncond: Any = None) -> Any:
    """Guide plainly, whatever the guider's formula is."""
    made = formula(pred_cond, pred_uncond)
    if pred_uncond is None:
        return made
    return with_part(made, 0, pred_uncond + (pred_cond - pred_uncond) * guider.guidance_scale)


def _guiders(pipeline: Any) -> list[Any]:
    loops = modular_loops(pipeline)
    names = () if loops is None else loops.guiders
    return [x for name in names if (x := getattr(pipeline, name, None)) is not None]


def _differs(what: str, got: Array, expected: Array, tolerance: float) -> str:
    """Say why two results are not the same; empty if they are."""
    if tolerance == 0.0:
        return "" if np.array_equal(got, expected) else what
    difference = error(got, expected)
    return "" if difference < tolerance else f"{what} by {difference:.1e}"


def measure(entry: ModularEntry, fx: Framework) -> dict[str, Outcomes]:
    """Measure what comes of a class, by the case."""
    found: dict[str, Outcomes] = {}
    if entry.bound_alone:
        try:
            bind(entry.build(fx))
        except UnsupportedPipelineError as refusal:
            every = dict.fromkeys(WHAT, "refused"), dict.fromkeys(WHAT, str(refusal))
            return {"bound": Outcomes(*every)}
        return {"bound": Outcomes(dict.fromkeys(WHAT, "wrong"), {WHAT[0]: "it is not refused"})}
    for case, request in CASES.items():
        if case in entry.impossible:
            continue
        found[case] = Measured(entry, fx, request).all()
    return found
