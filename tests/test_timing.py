"""StepTimer and Progress, on a clock that goes as the tests say."""

from __future__ import annotations

import importlib
import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from unicb import Callback, Interrupt, Step, bind
from unicb.callbacks.timing import Progress, ProgressState, StepTimer
from unicb_numpy.pipelines import ToyPipeline


class Clock(Callback):
    """Lets seconds pass at the end of each step, before the callbacks after it are called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> None:
        self.now, self.seconds = 100.0, seconds
        for module in ("run.call", "callbacks.timing"):
            ours = SimpleNamespace(monotonic=lambda: self.now)
            monkeypatch.setattr(f"unicb.{module}.time", ours)

    def on_step_end(self, step: Step) -> None:
        self.now += self.seconds[step.index]


SECONDS = [8.0, 1.0, 2.0, 4.0, 1.0, 1.0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, SECONDS)


def test_times(pipe: ToyPipeline, clock: Clock) -> None:
    timer = StepTimer()
    assert timer.times is None
    assert timer.summary() == "no step yet"
    callbacks = bind(pipe, clock, timer)
    pipe("x", num_inference_steps=6, **callbacks)
    assert timer.times is not None
    assert (timer.times.first, timer.times.seconds) == (8.0, [1.0, 2.0, 4.0, 1.0, 1.0])
    assert (timer.times.median, timer.times.total) == (1.0, 17.0)
    assert timer.summary() == "6 steps in 17 s: 1 s a step (1..4), the first after 8 s"
    before = timer.times
    pipe("x", num_inference_steps=1, **callbacks)
    assert before.total == 17.0
    assert (timer.times.median, timer.summary()) == (None, "1 step in 8 s")


def test_times_of_a_run_cut_short(pipe: ToyPipeline, clock: Clock) -> None:
    timer = StepTimer(wait=False)
    pipe("x", num_inference_steps=6, **bind(pipe, clock, Interrupt(2), timer))
    assert timer.times is not None
    assert timer.times.seconds == [1.0, 2.0]
    with pytest.raises(IndexError):  # the clock has no seventh step
        pipe("x", num_inference_steps=9, **bind(pipe, clock, timer))
    assert len(timer.times.seconds) == 5


def test_what_the_timer_copies(pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from unicb_numpy.ops import NumpyOps

    sizes: list[int] = []
    to_numpy = NumpyOps.to_numpy

    def counted(self: NumpyOps, x: Any) -> Any:
        sizes.append(x.data.size)
        return to_numpy(self, x)

    monkeypatch.setattr(NumpyOps, "to_numpy", counted)
    pipe("x", **bind(pipe, StepTimer()))
    assert sizes == [1] * 10
    pipe("x", **bind(pipe, StepTimer(wait=False)))
    assert sizes == [1] * 10


def test_wait_is_a_bool() -> None:
    with pytest.raises(TypeError, match="wait must be True or False"):
        StepTimer(wait=1)  # type: ignore[arg-type]


def test_states(pipe: ToyPipeline, clock: Clock) -> None:
    states: list[ProgressState] = []
    pipe("x", num_inference_steps=6, **bind(pipe, clock, Progress(states.append)))
    assert [state.step for state in states] == list(range(6))
    assert [state.elapsed for state in states] == [8.0, 9.0, 11.0, 15.0, 16.0, 17.0]
    assert [state.seconds_per_step for state in states] == [None, 1.0, 1.5, 2.0, 1.5, 1.0]
    assert [state.remaining for state in states] == [None, 4.0, 4.5, 4.0, 1.5, 0.0]
    assert str(states[0]) == "step 1/6"
    assert str(states[2]) == "step 3/6, 1.5 s a step, 0:04 left"


def test_pace_is_of_the_last_eight(pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, [1.0] * 10 + [5.0] * 8)
    states: list[ProgressState] = []
    pipe("x", num_inference_steps=18, **bind(pipe, clock, Progress(states.append)))
    assert (states[9].seconds_per_step, states[17].seconds_per_step) == (1.0, 5.0)


def test_plain_lines(pipe: ToyPipeline, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    pipe("x", num_inference_steps=6, **bind(pipe, clock, Progress("plain")))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "step 1/6"
    assert lines[-1] == "step 6/6, 1 s a step, 0:00 left"
    assert len(lines) == 6


def test_plain_lines_of_a_long_run(pipe: ToyPipeline, capsys: pytest.CaptureFixture[str]) -> None:
    pipe("x", num_inference_steps=100, **bind(pipe, Progress("plain")))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("step 10/100, ")


def test_plain_line_in_a_terminal(
    pipe: ToyPipeline, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    pipe("x", num_inference_steps=6, **bind(pipe, clock, Interrupt(3), Progress("plain")))
    written = terminal.getvalue()
    assert written.count("\r") == 4
    assert written.endswith("left  \n")  # blanks over what was longer


class Bar:
    """As tqdm's, as far as it is used."""

    made: list[Bar] = []

    def __init__(self, total: int, unit: str, desc: str) -> None:
        self.total, self.n, self.closed = total, 0, 0
        self.made.append(self)

    def update(self, n: int) -> None:
        self.n += n

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Bar))
    Bar.made = []
    return Bar.made


@pytest.mark.parametrize("display", [None, "tqdm"])
def test_tqdm(pipe: ToyPipeline, bars: list[Bar], display: Any) -> None:
    callbacks = bind(pipe, Progress(display))
    pipe("x", **callbacks)
    pipe("x", num_inference_steps=4, **callbacks)
    assert [(bar.total, bar.n, bar.closed) for bar in bars] == [(10, 10, 1), (4, 4, 1)]


def test_tqdm_is_closed_after_an_exception(pipe: ToyPipeline, bars: list[Bar]) -> None:
    def fail(pipeline: Any, index: int, timestep: Any, tensors: Any) -> None:
        if index == 3:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        pipe("x", **bind(pipe, Progress("tqdm"), fail))
    assert [(bar.n, bar.closed) for bar in bars] == [(4, 1)]


def test_without_packages(
    pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    for name in ("tqdm", "rich"):
        with pytest.raises(ModuleNotFoundError, match=f"pip install {name}"):
            Progress(name)  # type: ignore[arg-type]
    pipe("x", **bind(pipe, Progress()))
    assert capsys.readouterr().err.startswith("step 1/10\n")


def test_a_failing_display_does_not_end_the_run(pipe: ToyPipeline) -> None:
    calls: list[int] = []

    def show(state: ProgressState) -> None:
        calls.append(state.step)
        raise OSError("gone")

    with pytest.warns(RuntimeWarning, match="not shown for the rest of this run: OSError: gone"):
        pipe("x", **bind(pipe, Progress(show)))
    assert calls == [0]


@pytest.mark.parametrize(
    ("display", "error"), [("bar", ValueError), (3, TypeError), (["tqdm"], TypeError)]
)
def test_unknown_display(display: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="display must be"):
        Progress(display)


@pytest.mark.parametrize("name", ["tqdm", "rich"])
def test_the_packages_themselves(
    pipe: ToyPipeline, name: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe("x", num_inference_steps=7, **bind(pipe, Progress(name)))
    assert "7/7" in capsys.readouterr().err
