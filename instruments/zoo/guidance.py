"""Guidance in an interval of the steps, and of a scale that changes, against runs without unicb.

Runs of the same request from the same noise:

- with full guidance, and with ``GuidanceInterval``; its reference, in which both halves are
  computed in every step and the unconditional one is overwritten outside the interval;
- ``GuidanceInterval(0, r)`` and ``CFGCutoff(r)``, which are the same;
- ``GuidanceSchedule`` with one scale for all steps, and a plain call with that scale;
- one with another scale in every step, and a plain call into whose loop they are put, one after
  the other, from a plain callback;
- one whose scale falls to where the class's guidance is off, and a call with the first scale in
  which the unconditional half is overwritten from that step on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unicb import CFGCutoff, GuidanceInterval, GuidanceSchedule, bind
from unicb.errors import UnsupportedPipelineError
from unicb.pipelines import PipelineFacts, facts_for
from zoo.entry import Entry, Request
from zoo.framework import Framework
from zoo.loops import called, caller
from zoo.measure import EXACT, _Recorder, error, has_none
from zoo.planned import Counting, Ended, Planned, bounds, per_step, unguided
from zoo.scales import another, called_with, scale_in, set_in_loop

#: From the middle of the run on, a schedule that falls has a scale at which guidance is off.
MIDDLE = 0.5
CUTOFF = 0.4
#: How many runs tell what roundings make of a reference.
ROUNDED = 4
#: References must differ from full guidance by this many times what passes as exact.
EFFECT = 10


@dataclass(frozen=True)
class Part:
    """A part says what came of one of the two callbacks.

    Attributes:
        verdict: "exact", "refused" (by ``bind``, or by an error before a wrong picture) or "wrong".
        why: the reason, where it is not "exact".
        difference: the largest difference from a reference, in standard deviations.
    """

    verdict: str
    why: str = ""
    difference: float | None = None


@dataclass(frozen=True)
class Guided:
    """``Guided`` says what one class did with one request.

    Attributes:
        verdict: the worse of the two callbacks', or "failed" (the pipeline itself raised),
            "impossible" (it cannot do this case), "not built", or "no guidance" (the class has
            none; ``bind`` says so).
        why: the reason, where it is not "exact".
        interval, schedule: the outcomes of ``GuidanceInterval`` and ``GuidanceSchedule``.
        saved: share of the models' rows that the steps outside the interval leave out.
    """

    verdict: str
    why: str = ""
    interval: Part | None = None
    schedule: Part | None = None
    saved: float | None = None


class Runs:
    """The runs of one request."""

    def __init__(self, entry: Entry, fx: Framework, pipeline: Any, request: Request) -> None:
        self.entry, self.fx, self.pipeline, self.request = entry, fx, pipeline, request
        self.facts = facts_for(pipeline)
        self.followers: list[str] = []
        self.before = 0
        #: The latents of a run with full guidance.
        self.full: Any = None
        #: Where predictions are to be changed in their last bits.
        self.rounding: np.random.Generator | None = None

    def arguments(self, scale: float | None = None) -> dict[str, Any]:
        made = self.entry.arguments(self.fx, self.pipeline, self.request)
        if scale is None:
            return made
        assert self.facts is not None
        return called_with(self.pipeline, self.facts, made, scale)

    def meter(self, plan: Sequence[bool] | None = None, reference: bool = False) -> Any:
        about = (self.fx, self.pipeline, self.facts, self.request.rows)
        made = Counting(*about) if plan is None else Planned(*about, plan, reference, self.before)
        made.rounding = self.rounding
        return made

    def plain(
        self, meter: Any, scale: float | None = None, scales: Sequence[float] | None = None
    ) -> Any:
        """Run without unicb, with a scale for the call, or one for each step."""
        assert self.facts is not None
        name, facts, ends = self.facts.batch_of, self.facts, iter(list(scales or ())[1:])

        def callback(pipe: Any, i: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            n = getattr(pipe, "num_timesteps", None)
            meter.step_end(len(pipe.scheduler.timesteps) if n is None else n, tensors[name])
            if (following := next(ends, None)) is not None:
                set_in_loop(pipe, facts, following, self.followers)
            return tensors

        call = caller(self.entry, self.fx, self.pipeline, self.request)
        with meter.watching():
            call(self.arguments(scales[0] if scales else scale), callback, name)
        return meter.latents

    def compared(self, found: Any, wanted: Any, reference: Any) -> tuple[str, float]:
        """Say what is wrong with a run, and how much it differs from its reference.

        Args:
            reference: runs the reference again.
        """
        difference, effect = error(found, wanted), error(self.full, wanted)
        bound = EXACT
        if difference >= bound:
            self.rounding = np.random.default_rng(3)
            try:
                bound = max(error(reference(), wanted) for _ in range(ROUNDED))
            finally:
                self.rounding = None
        if not effect > EFFECT * bound:
            return "the reference does not differ from full guidance", difference
        return ("" if difference < bound else "differs from the reference"), difference

    def ours(self, callback: Any, meter: Any, scale: float | None = None) -> Any:
        """Run with one of unicb's callbacks."""
        assert self.facts is not None
        callbacks = bind(self.pipeline, callback, _Recorder(meter, self.facts.batch_of))
        with meter.watching():
            called(self.pipeline, callbacks, self.arguments(scale))
        return meter.latents


def measure(entry: Entry, fx: Framework, pipeline: Any, request: Request) -> Guided:
    """Measure one class with one request."""
    facts = facts_for(pipeline)
    try:
        bind(pipeline, CFGCutoff(0.5))
    except UnsupportedPipelineError as refusal:
        return Guided("no guidance" if has_none(facts) else "refused", str(refusal))
    assert facts is not None
    runs = Runs(entry, fx, pipeline, request)
    counting = runs.meter()
    try:
        runs.full = runs.plain(counting)
        runs.before = counting.before()
    except Exception as failure:
        return Guided("failed", f"{type(failure).__name__}: {failure}")
    ended = counting.ended
    if ended[0].steps < 2:
        return Guided("failed", f"it has {ended[0].steps} steps: too few")
    interval, saved = _measured(_interval, runs, ended)
    schedule, _ = _measured(_schedule, runs, ended)
    parts = {"GuidanceInterval": interval, "GuidanceSchedule": schedule}
    if error(runs.plain(runs.meter()), runs.full) > fx.repeats_to:
        return Guided("wrong", "a plain run afterwards differs from one before", interval, schedule)
    for verdict in ("wrong", "refused"):
        for name, part in parts.items():
            if part.verdict == verdict:
                return Guided(verdict, f"{name}: {part.why}", interval, schedule, saved)
    return Guided("exact", "", interval, schedule, saved)


def _measured(
    check: Callable[..., tuple[Part, float | None]], runs: Runs, ended: list[Ended]
) -> tuple[Part, float | None]:
    try:
        return check(runs, ended)
    except UnsupportedPipelineError as refusal:
        return Part("refused", str(refusal)), None
    except Exception as failure:
        return Part("wrong", f"{type(failure).__name__}: {failure}"), None


def _interval(runs: Runs, ended: list[Ended]) -> tuple[Part, float | None]:
    assert runs.facts is not None
    start, stop = bounds(ended)
    plan = unguided(ended, start, stop)
    both, ours = runs.meter(plan), runs.meter(plan)
    runs.plain(both)

    def reference() -> Any:
        return runs.plain(runs.meter(plan, reference=True))

    wanted = reference()
    found = runs.ours(GuidanceInterval(start, stop), ours)
    wrong, difference = runs.compared(found, wanted, reference)
    (outside, inside), (all_outside, all_inside) = ours.work(), both.work()
    saved = 1 - outside / all_outside
    if wrong:
        return Part("wrong", wrong, difference), saved
    if inside != all_inside:
        why = f"in the interval, models get {inside} rows instead of {all_inside}"
        return Part("wrong", why, difference), saved
    # A call that fills a cache is made all the same.
    ideal = 0.01 if runs.facts.fills else _ideal(runs.facts)
    if saved < ideal - 0.01 and not runs.entry.saves_less:
        return Part("wrong", f"saves {saved:.0%} instead of {ideal:.0%}", difference), saved
    cut = runs.ours(CFGCutoff(CUTOFF), runs.meter())
    same = error(runs.ours(GuidanceInterval(0, CUTOFF), runs.meter()), cut)
    if same > runs.fx.repeats_to:
        return Part("wrong", f"(0, {CUTOFF}) is not CFGCutoff({CUTOFF})", same), saved
    return Part("exact", "", difference), saved


def _ideal(facts: PipelineFacts) -> float:
    return min(
        facts.order[:blocks].count("unconditional") / blocks
        for blocks in range(facts.least_blocks, len(facts.order) + 1)
    )


def _schedule(runs: Runs, ended: list[Ended]) -> tuple[Part, float | None]:
    facts = runs.facts
    assert facts is not None
    bind(runs.pipeline, GuidanceSchedule(2.0))  # may refuse
    scale = scale_in(runs.pipeline, facts, runs.arguments())
    assert scale is not None, "nobody knows the scale of its call"
    other = another(facts, scale)

    def rising(progress: float) -> float:
        return other * (1 + progress)

    scales = per_step(ended, rising(0.0), lambda end: rising((end.index + 1) / end.steps))
    off = facts.guided_above if math.isfinite(facts.guided_above) else 1.0
    falling = [(0.0, other), (MIDDLE, off)]
    plan = per_step(ended, False, lambda end: (end.index + 1) / end.steps >= MIDDLE)

    def fallen() -> Any:
        # The sound's guidance stays on; or the loop guides by all scales.
        if len(runs.followers) < len(facts.scale_follows) or not math.isfinite(facts.guided_above):
            return runs.plain(runs.meter(), None, [off if ends else other for ends in plan])
        return runs.plain(runs.meter(plan, reference=True), other)

    references: dict[str, tuple[Any, Callable[[], Any]]] = {
        "one scale": (other, lambda: runs.plain(runs.meter(), other)),
        "rising": (rising, lambda: runs.plain(runs.meter(), None, scales)),
        "falling": (falling, fallen),
    }
    largest = 0.0
    for what, (schedule, reference) in references.items():
        wanted = reference()
        if what == "one scale":
            runs.followers = [x for x in facts.scale_follows if getattr(runs.pipeline, x) == other]
        found = runs.ours(GuidanceSchedule(schedule), runs.meter())
        wrong, difference = runs.compared(found, wanted, reference)
        if wrong:
            return Part("wrong", f"{what}: {wrong}", difference), None
        largest = max(largest, difference)
    return Part("exact", "", largest), None
