"""Pipelines of both frameworks in one process, bound and running at the same time.

A run inside a step of another run is the strictest order there is: whatever the outer run has left
on its pipeline is there while the inner one comes and goes. Every result must be, to the bit, the
one that the pipeline gives on its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sides import SIDES

from unicb import Callback, CFGCutoff, Preview, PreviewFrame, Step, bind
from unicb.testing import Case

CASE = Case("text2img", prompts=2)
PATIENCE = 120.0  # seconds; reached only where one of two threads has failed
ORDERS = [("torch", "mindspore"), ("mindspore", "torch")]

Callbacks = Sequence[Callback]


@dataclass
class AtStep(Callback):
    """Does something at the end of one step."""

    index: int
    action: Callable[[], object]

    def on_step_end(self, step: Step) -> None:
        if step.index == self.index:
            self.action()


@dataclass
class Meet(Callback):
    """Waits at the end of each step, up to the last that is named, for the other thread."""

    barrier: threading.Barrier
    last: int = CASE.steps - 1

    def on_step_end(self, step: Step) -> None:
        if step.index <= self.last:
            self.barrier.wait(PATIENCE)


@dataclass
class Shrink(Callback):
    """Changes the latents; keeps which pipelines it was called by."""

    callers: list[Any] = field(default_factory=list)

    tensors = ("latents",)

    def on_step_end(self, step: Step) -> None:
        self.callers.append(step.pipeline)
        step["latents"] = step["latents"] * 0.5


@dataclass
class Result:
    """What a run gave, and what the denoiser was called with."""

    latents: npt.NDArray[Any]
    rows: list[int]

    def is_that_of(self, other: Result) -> bool:
        return self.rows == other.rows and np.array_equal(self.latents, other.latents)


class Pair:
    """A pipeline of each framework."""

    def __init__(self, pipes: Mapping[str, Any]) -> None:
        self.pipes = pipes

    def run(self, name: str, keywords: Mapping[str, Any]) -> Result:
        side = SIDES[name]
        with side.rows(self.pipes[name]) as rows:
            latents = side.harness.run(self.pipes[name], CASE, **keywords)
        return Result(latents, rows)

    def run_alone(self, name: str, *callbacks: Callback) -> Result:
        return self.run(name, bind(self.pipes[name], *callbacks))

    def run_nested(self, order: tuple[str, str], of: Mapping[str, Callbacks]) -> dict[str, Result]:
        """Run the second pipeline inside the first one's step 1, both bound before."""
        outer, inner = order
        results: dict[str, Result] = {}
        within = bind(self.pipes[inner], *of[inner])
        run_inner = AtStep(1, lambda: results.update({inner: self.run(inner, within)}))
        results[outer] = self.run_alone(outer, *of[outer], run_inner)
        return results

    def run_in_threads(self, bindings: Mapping[str, Mapping[str, Any]]) -> dict[str, Result]:
        """Run both at the same time, one thread for each."""
        with ThreadPoolExecutor(len(bindings)) as pool:
            futures = {name: pool.submit(self.run, name, bindings[name]) for name in bindings}
            return {name: future.result() for name, future in futures.items()}


@pytest.fixture(scope="module")
def pair(tiny: dict[str, Any]) -> Pair:
    return Pair(tiny)


def cuts() -> dict[str, list[Callback]]:
    """A cut in each run, at different steps."""
    return {
        "torch": [CFGCutoff(cutoff_step_index=0)],
        "mindspore": [CFGCutoff(cutoff_step_index=2)],
    }


CUT_ROWS = {"torch": [4, 2, 2, 2], "mindspore": [4, 4, 4, 2]}


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_bindings_made_together_serve_their_own_pipelines(pair: Pair, order: Any) -> None:
    alone = {name: pair.run_alone(name, *callbacks) for name, callbacks in cuts().items()}
    bindings = {name: bind(pair.pipes[name], *callbacks) for name, callbacks in cuts().items()}
    for name in (*order, *order):
        result = pair.run(name, bindings[name])
        assert result.rows == CUT_ROWS[name]
        assert result.is_that_of(alone[name])


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_a_run_inside_a_step_of_the_other(pair: Pair, order: Any) -> None:
    alone = {name: pair.run_alone(name, *callbacks) for name, callbacks in cuts().items()}
    results = pair.run_nested(order, cuts())
    for name in order:
        assert results[name].rows == CUT_ROWS[name]
        assert results[name].is_that_of(alone[name])


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_a_cut_on_one_leaves_the_other_with_guidance(pair: Pair, order: Any) -> None:
    outer, inner = order
    plain = pair.run(inner, {})
    results = pair.run_nested(order, {outer: [CFGCutoff(cutoff_step_index=0)], inner: []})
    assert results[outer].rows == [4, 2, 2, 2]
    assert results[inner].rows == [4, 4, 4, 4]
    assert results[inner].is_that_of(plain)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_an_interrupt_of_one_leaves_the_other_running(pair: Pair, order: Any) -> None:
    """The outer run is told to stop while the inner one is running."""
    outer, inner = order
    plain = pair.run(inner, {})
    results: list[Result] = []
    of_inner = bind(pair.pipes[inner], AtStep(0, lambda: of_outer.interrupt()))
    run_inner = AtStep(1, lambda: results.append(pair.run(inner, of_inner)))
    of_outer = bind(pair.pipes[outer], run_inner)
    stopped = pair.run(outer, of_outer)
    assert stopped.rows == [4, 4]
    assert results[0].is_that_of(plain)
    assert pair.run(outer, {}).rows == [4, 4, 4, 4]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_an_inner_interrupt_leaves_the_outer_running(pair: Pair, order: Any) -> None:
    outer, inner = order
    plain = pair.run(outer, {})
    of_inner = bind(pair.pipes[inner])
    of_inner.interrupt()
    run_inner = AtStep(1, lambda: inner_rows.extend(pair.run(inner, of_inner).rows))
    inner_rows: list[int] = []
    assert pair.run_alone(outer, run_inner).is_that_of(plain)
    assert inner_rows == [4]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_one_callback_object_serves_both(pair: Pair, order: Any) -> None:
    """The same three objects in both runs do in each what objects of its own would do."""
    outer, inner = order
    frames: dict[str, list[PreviewFrame]] = {"alone": [], "shared": []}
    alone = {}
    for name in order:
        cut, preview = CFGCutoff(0.25), Preview(frames["alone"].append)
        alone[name] = pair.run_alone(name, Shrink(), cut, preview)
    shrink = Shrink()
    shared = [shrink, CFGCutoff(0.25), Preview(frames["shared"].append)]
    results = pair.run_nested(order, dict.fromkeys(order, shared))
    for name in order:
        assert results[name].rows == [4, 4, 2, 2]
        assert results[name].is_that_of(alone[name])
    outer_pipe, inner_pipe = pair.pipes[outer], pair.pipes[inner]
    callers = [outer_pipe] * 2 + [inner_pipe] * 4 + [outer_pipe] * 2
    assert all(a is b for a, b in zip(shrink.callers, callers, strict=True))
    # Each run has a thread of its own for its frames, which say which run they are of.
    shown = [[f for f in frames["shared"] if f.run == run] for run in (0, 1)]
    found = [replace(frame, run=0) for frame in (*shown[0], *shown[1])]
    assert found == frames["alone"]


def test_both_run_at_once_in_two_threads(pair: Pair) -> None:
    """Neither starts a step before the other has ended the one before."""
    alone = {name: pair.run_alone(name, *callbacks) for name, callbacks in cuts().items()}
    barrier = threading.Barrier(2)
    bindings = {
        name: bind(pair.pipes[name], *callbacks, Meet(barrier))
        for name, callbacks in cuts().items()
    }
    results = pair.run_in_threads(bindings)
    for name in SIDES:
        assert results[name].rows == CUT_ROWS[name]
        assert results[name].is_that_of(alone[name])


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_an_interrupt_from_the_others_thread(pair: Pair, order: Any) -> None:
    """One run, while in a step, stops the other one, which is running in its own thread."""
    stopping, stopped = order
    plain = pair.run(stopping, {})
    meet = Meet(threading.Barrier(2), last=1)
    press_stop = AtStep(1, lambda: bindings[stopped].interrupt())
    bindings = {
        stopped: bind(pair.pipes[stopped], meet),
        stopping: bind(pair.pipes[stopping], press_stop, meet),
    }
    results = pair.run_in_threads(bindings)
    assert results[stopped].rows == [4, 4]
    assert results[stopping].is_that_of(plain)
