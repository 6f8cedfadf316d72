"""GuidanceInterval: which steps are guided, at what work, and that everything is put back."""

from __future__ import annotations

import gc
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from guided import (
    BY_LOCAL,
    LOOPS,
    BatchOfLocal,
    Known,
    SwitchOfLocal,
    expected_rows,
    reference,
    watched,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import Interleaved, TwoPasses
from stop_helpers import InThread, hooked

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    GuidanceInterval,
    PipelineFacts,
    Step,
    UnsupportedPipelineError,
    bind,
)
from unicb_numpy.pipelines import ToyPipeline


def steps_in(start: float, stop: float, n: int) -> list[bool]:
    return [int(n * start) <= index <= int(n * stop) for index in range(n)]


def left_on(pipe: Any) -> list[str]:
    """What is left on a pipeline; collects garbage first, since locals() makes cycles."""
    gc.collect()
    return hooked(pipe)


# ------------------------------------------------------------------------- which steps are guided


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize(("start", "stop"), [(0.3, 0.7), (0.0, 0.4), (0.55, 1.0), (0.9, 0.95)])
def test_every_way_of_guiding(kind: Any, start: float, stop: float) -> None:
    pipe, prompts = kind(), ["x", "y"]
    inside = steps_in(start, stop, 10)
    wanted = reference(pipe, prompts, inside)
    assert not np.allclose(wanted, pipe(prompts, steps=10))
    with watched(pipe) as rows:
        found = pipe(prompts, steps=10, **bind(pipe, GuidanceInterval(start, stop)))
    assert rows == expected_rows(pipe, inside, batch=2)
    assert (found == wanted).all()
    assert left_on(pipe) == []


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shares=st.lists(st.integers(0, 40), min_size=2, max_size=2, unique=True),
    steps=st.integers(1, 13),
)
def test_any_interval(shares: list[int], steps: int) -> None:
    start, stop = (share / 40 for share in sorted(shares))
    pipe, inside = Known(), steps_in(start, stop, steps)
    with watched(pipe) as rows:
        found = pipe("x", steps, **bind(pipe, GuidanceInterval(start, stop)))
    assert rows == expected_rows(pipe, inside)
    assert any(inside)
    assert (found == reference(pipe, "x", inside)).all()


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("ratio", [0.05, 0.4, 0.9, 1.0])
def test_from_the_start_it_is_the_cutoff(kind: Any, ratio: float) -> None:
    pipe = kind()
    with watched(pipe) as rows:
        cut = pipe(["x"], steps=10, **bind(pipe, CFGCutoff(ratio)))
        of_cutoff = list(rows)
        rows.clear()
        found = pipe(["x"], steps=10, **bind(pipe, GuidanceInterval(0, ratio)))
    assert rows == of_cutoff
    assert (found == cut).all()


@pytest.mark.parametrize(
    ("start", "stop", "inside"),
    [
        # 9 half steps, of which two make a whole one: 0 1 | 2 3 | 4 5 | 6 7 | 8
        (0.35, 0.5, [0, 0, 1, 1, 1, 1, 0, 0, 0]),  # 3 to 4
        (0.12, 0.2, [1, 1, 0, 0, 0, 0, 0, 0, 0]),  # 1 alone, the second half of the first
        (0.23, 0.24, [0, 0, 1, 1, 0, 0, 0, 0, 0]),  # 2 alone
        (0.9, 1.0, [0, 0, 0, 0, 0, 0, 0, 0, 1]),
    ],
)
def test_order_2_guides_whole_steps(start: float, stop: float, inside: list[int]) -> None:
    pipe, steps = Known(order=2), [bool(step) for step in inside]
    with watched(pipe) as rows:
        found = pipe("x", 5, **bind(pipe, GuidanceInterval(start, stop)))
    assert rows == expected_rows(pipe, steps)
    conditional = [step for step, on in enumerate(steps) if not on]

    def change(call: int, out: Any) -> Any:
        kept = np.split(out.data, 2)[1]
        return type(out)(np.concatenate([kept, kept])) if call in conditional else out

    with watched(pipe, change):
        assert (found == pipe("x", 5)).all()


def test_each_loop_of_a_call() -> None:
    """Of a loop that is run twice, as with FreeInit, each pass begins without guidance."""
    pipe = TwoPasses()
    with watched(pipe) as rows:
        pipe(["x"], **bind(pipe, GuidanceInterval(0.4, 0.6)))
    assert rows == [1, 1, 2, 2, 1] * 2
    assert left_on(pipe) == []


def test_what_is_said_wrongly_is_noticed_in_the_first_step() -> None:
    """Rows in pairs look like blocks; what the loop makes of them shows it."""
    facts = PipelineFacts(source="this test", denoisers=("unet",), verify=True)
    pipe = type("Pairs", (Interleaved,), {"unicb_facts": facts})()
    with watched(pipe) as rows, pytest.raises(UnsupportedPipelineError, match="was not seen to be"):
        pipe(["x", "y"], **bind(pipe, GuidanceInterval(0.3, 0.7)))
    assert rows == [4]
    assert left_on(pipe) == []


def test_rows_that_do_not_add_up_before_the_start() -> None:
    pipe = type("Half", (Known,), {"unicb_facts": PipelineFacts("here", ("unet",), order=THREE)})()
    with pytest.raises(UnsupportedPipelineError, match="with 2 rows, where guidance should give 3"):
        pipe("x", **bind(pipe, GuidanceInterval(0.3, 0.7)))
    assert left_on(pipe) == []


THREE: Any = ("unconditional", "conditional", "unconditional")


# ------------------------------------------------------------------------------ put back, whatever


class Raise(Callback):
    def __init__(self, at: int, what: BaseException) -> None:
        self.at, self.what = at, what

    def on_step_end(self, step: Step) -> None:
        if step.index == self.at:
            raise self.what


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("at", [0, 1, 4, 8])
def test_after_an_exception(kind: Any, at: int) -> None:
    """At the end of the first step, before the start, inside, and after the stop."""
    pipe = kind()
    plain = pipe(["x"], steps=10)
    callbacks = bind(pipe, GuidanceInterval(0.3, 0.7), Raise(at, RuntimeError("no")))
    with pytest.raises(RuntimeError) as kept:
        pipe(["x"], steps=10, **callbacks)
    assert hooked(pipe) == []  # at once, whoever keeps the traceback
    assert kept.value
    assert (pipe(["x"], steps=10) == plain).all()


@pytest.mark.parametrize("at", [1, 4, 8])
def test_after_an_interrupt(at: int) -> None:
    for kind in (Known, *BY_LOCAL):
        pipe = kind()
        callbacks = bind(pipe, GuidanceInterval(0.3, 0.7), stopping := Stop(at))
        stopping.stop = callbacks.interrupt
        with watched(pipe) as rows:
            pipe(["x"], steps=10, **callbacks)
        assert callbacks.state == "interrupted"
        inside = steps_in(0.3, 0.7, 10)[: at + 1]
        assert rows == expected_rows(pipe, inside)
        assert left_on(pipe) == []


class Stop(Callback):
    stop: Any

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, step: Step) -> None:
        if step.index == self.at:
            assert self.stop()


@pytest.mark.parametrize("now", [False, True])
def test_cancelled_before_its_first_step(now: bool) -> None:
    pipe = Known()
    callbacks = bind(pipe, GuidanceInterval(0.3, 0.7))
    callbacks.cancel(now=now)
    with watched(pipe) as rows, pytest.raises(GenerationCancelled) as cancelled:
        pipe("x", **callbacks)
    assert (cancelled.value.step, len(rows)) == ((-1, 0) if now else (0, 1))
    assert callbacks.state == "cancelled"
    assert hooked(pipe) == []


@pytest.mark.parametrize("keep", [False, True])
def test_a_scheduler_that_fails_in_the_first_step(keep: bool) -> None:
    pipe = Known()
    plain, step = pipe("x"), pipe.scheduler.step
    callbacks = bind(pipe, GuidanceInterval(0.3, 0.7))

    def fail(*_: Any) -> Any:
        raise ArithmeticError("the first step")

    pipe.scheduler.step = fail  # type: ignore[method-assign]
    with pytest.raises(ArithmeticError) as kept:
        pipe("x", **callbacks)
    if not keep:
        del kept
        assert left_on(pipe) == ["step of the scheduler"]
    pipe.scheduler.step = step  # type: ignore[method-assign]
    # With the traceback kept, the loop's frame is alive; but it is not running.
    assert callbacks.state == "failed"
    assert (pipe("x") == plain).all()


def test_a_denoiser_that_fails_in_the_first_step() -> None:
    pipe = Known()

    def fail(call: int, out: Any) -> Any:
        raise MemoryError("the first call")

    callbacks = bind(pipe, GuidanceInterval(0.3, 0.7))
    with watched(pipe, fail), pytest.raises(MemoryError):
        pipe("x", **callbacks)
    assert callbacks.state == "failed"
    assert hooked(pipe) == []


def test_two_runs_on_one_binding() -> None:
    pipe = Known()
    callbacks, inside = bind(pipe, GuidanceInterval(0.3, 0.7)), steps_in(0.3, 0.7, 10)
    once = expected_rows(pipe, inside)
    plain = pipe("x")
    with watched(pipe) as rows:
        first = pipe("x", **callbacks)
        assert left_on(pipe) == []
        between = pipe("x")
        second = pipe("x", **callbacks)
    assert rows == [*once, *[2] * 10, *once]
    assert (first == second).all()
    assert (between == plain).all()


def test_one_callback_in_two_threads_on_one_denoiser() -> None:
    """What one run leaves out, another one on the same denoiser computes."""
    interval = GuidanceInterval(0.3, 0.7)
    pipes = [Known(), BatchOfLocal()]
    pipes[1].unet = pipes[0].unet
    wanted = [reference(pipe, ["x"], steps_in(0.3, 0.7, 10)) for pipe in pipes]
    turns = threading.Barrier(2, timeout=20)

    class Turn(Callback):
        """No step of the one begins before the other has ended its own."""

        def on_step_end(self, step: Step) -> None:
            turns.wait()

    running = [
        InThread(lambda pipe=pipe: pipe(["x"], steps=10, **bind(pipe, interval, Turn())))
        for pipe in pipes
    ]
    for thread in running:
        thread.join()
    for thread, expected in zip(running, wanted, strict=True):
        assert thread.error is None
        assert (thread.result == expected).all()
    assert left_on(pipes[0]) == []


def test_a_plain_run_in_another_thread_is_left_alone() -> None:
    pipe, other = Known(), Known()
    other.unet = pipe.unet
    plain: list[Any] = []

    class Between(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index in (0, 4):
                thread = InThread(lambda: plain.append(other("x")))
                thread.join()
                assert thread.error is None

    expected = other("x")
    pipe("x", **bind(pipe, GuidanceInterval(0.3, 0.7), Between()))
    assert len(plain) == 2
    for found in plain:
        assert (found == expected).all()


# ------------------------------------------------------------------------------------- guidance off


@pytest.mark.parametrize("kind", [Known, *BY_LOCAL])
@pytest.mark.parametrize("start", [0.0, 0.3])
def test_guidance_off_is_left_alone_and_said_once(kind: Any, start: float) -> None:
    pipe = kind()
    off = 0.0 if kind.__name__ == "FromConditional" else 1.0
    plain = pipe(["x"], steps=10, guidance_scale=off)
    callbacks = bind(pipe, GuidanceInterval(start, 0.7))
    with pytest.warns(UserWarning, match="called with guidance off") as said:
        found = pipe(["x"], steps=10, guidance_scale=off, **callbacks)
    assert len(said) == 1
    assert (found == plain).all()
    assert left_on(pipe) == []


def test_with_guidance_on_nothing_is_said() -> None:
    pipe = Known()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe("x", **bind(pipe, GuidanceInterval(0.3, 0.7)))


# ------------------------------------------------------------------------------------ bad arguments


@pytest.mark.parametrize(
    ("start", "stop", "error", "message"),
    [
        (0.7, 0.3, ValueError, "start must be below stop, and 0.7 is not below 0.3"),
        (0.5, 0.5, ValueError, "0.5 is not below 0.5"),
        (-0.1, 0.5, ValueError, r"start is a share of the steps and must lie in 0\.\.1, not -0.1"),
        (0.2, 30, ValueError, r"stop is a share of the steps and must lie in 0\.\.1, not 30"),
        (
            0.2,
            float("nan"),
            ValueError,
            r"stop is a share .* in 0\.\.1, not nan",
        ),
        ("0.2", 0.5, TypeError, "start must be a number, not '0.2'"),
        (0.2, None, TypeError, "stop must be a number, not None"),
        (False, True, TypeError, "start must be a number, not False"),
    ],
)
def test_bad_arguments(start: Any, stop: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        GuidanceInterval(start, stop)


@pytest.mark.parametrize("other", [CFGCutoff(0.5), GuidanceInterval(0.1, 0.2)])
def test_two_that_decide_on_guidance(pipe: ToyPipeline, other: Any) -> None:
    names = f"GuidanceInterval and {type(other).__name__}"
    with pytest.raises(ValueError, match=f"both decide on guidance: {names}"):
        bind(pipe, GuidanceInterval(0.3, 0.7), other)


def test_without_cfg() -> None:
    none = PipelineFacts("here", cfg="none", why_none="has no classifier-free guidance")
    pipe = type("Plain", (ToyPipeline,), {"unicb_facts": none})()
    with pytest.raises(UnsupportedPipelineError, match="on Plain: it has no classifier-free"):
        bind(pipe, GuidanceInterval(0.3, 0.7))


# -------------------------------------------------------------------------- cutting and uncutting


@pytest.mark.parametrize("kind", LOOPS)
def test_cut_and_restored_by_a_callback_of_ones_own(kind: Any) -> None:
    pipe, said = kind(), []

    class Every(Callback):
        def on_step_end(self, step: Step) -> None:
            change = step.restore_guidance if step.index % 2 else step.cut_guidance
            said.append((change(), change()))

    inside = [index % 2 == 0 for index in range(10)]
    wanted = reference(pipe, ["x"], inside)
    with watched(pipe) as rows:
        found = pipe(["x"], steps=10, **bind(pipe, Every()))
    assert said == [(True, False)] * 10
    assert rows == expected_rows(pipe, inside, seen_at=1)
    assert (found == wanted).all()
    assert left_on(pipe) == []


def test_a_scale_set_while_guidance_is_cut_holds_once_it_is_back() -> None:
    facts = PipelineFacts("here", ("unet",), cfg="switch")
    pipe = type("Switch", (SwitchOfLocal,), {"unicb_facts": facts})()
    scales: list[float] = []

    class Set(Callback):
        def on_step_end(self, step: Step) -> None:
            scales.append(step.guidance_scale)
            if step.index == 1:
                step.cut_guidance()
            if step.index == 3:
                step.guidance_scale = 8.0
            if step.index == 5:
                step.restore_guidance()

    pipe(["x"], steps=8, **bind(pipe, Set()))
    assert scales == [5.0, 5.0, 1.0, 1.0, 1.0, 1.0, 8.0, 8.0]
    assert pipe.guidance_scale == 5.0
