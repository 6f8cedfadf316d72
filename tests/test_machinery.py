"""What a step's end does not do twice: the shortcuts of a run's steps, and that they are safe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unicb import Callback, Step, bind
from unicb.run import call_loop
from unicb_numpy import backend
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline


class Writes(Callback):
    tensors = ("latents",)

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_step_end(self, step: Step) -> None:
        self.seen.append(step.index)
        step["latents"] = step["latents"] * 1.0


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The frames from which the loop was looked for among the callers."""
    found: list[object] = []
    look = call_loop.loop_frame_id

    def counted(pipeline: Any, frame: Any) -> Any:
        found.append(frame.f_code)
        return look(pipeline, frame)

    monkeypatch.setattr(call_loop, "loop_frame_id", counted)
    return found


def test_a_loop_is_looked_for_once_a_run(walks: list[object]) -> None:
    pipe, writes = ToyPipeline(), Writes()
    callbacks = bind(pipe, writes)
    for run in (1, 2):
        pipe("x", num_inference_steps=6, **callbacks)
        assert len(walks) == run
    assert writes.seen == [*range(6)] * 2


def test_a_function_between_the_loop_and_the_binding(walks: list[object]) -> None:
    """It is another caller at each step, and the run is one all the same: its steps follow on."""
    pipe, writes = ToyPipeline(), Writes()
    starts: list[None] = []
    writes.on_run_start = lambda run: starts.append(None)  # type: ignore[method-assign]
    keywords = dict(bind(pipe, writes))
    callback = keywords["callback_on_step_end"]
    keywords["callback_on_step_end"] = lambda *arguments: callback(*arguments)
    pipe("x", num_inference_steps=6, **keywords)
    assert writes.seen == [*range(6)]
    assert len(starts) == 1
    assert len(walks) == 1


def test_two_loops_of_one_call_are_two_runs(walks: list[object]) -> None:
    """Another call of the same code is another caller, and not taken for the first."""

    class Twice(ToyPipeline):
        def __call__(self, *args: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
            for _ in range(2):
                found = super().__call__(*args, callback_on_step_end=callback_on_step_end, **kwargs)
            return found

    pipe, writes = Twice(), Writes()
    starts: list[None] = []
    writes.on_run_start = lambda run: starts.append(None)  # type: ignore[method-assign]
    pipe("x", num_inference_steps=3, **bind(pipe, writes))
    assert writes.seen == [0, 1, 2] * 2
    assert len(starts) == 2


class Generates(ToyPipeline):
    """Its call is a generator, which stops after each step."""

    def __call__(self, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
        self._num_timesteps = 4
        for i in range(4):
            callback_on_step_end(self, i, 1000.0, {"latents": StrictTensor(np.zeros((1, 4, 8, 8)))})
            yield i


@pytest.mark.parametrize("look", [False, True], ids=["", "looked after"])
def test_steps_of_two_loops_in_turn_are_not_one_run(look: bool) -> None:
    """The second call has its loop's frame, and the first is resumed with an index that follows on
    in both."""
    pipe, writes = Generates(), Writes()
    starts: list[None] = []
    writes.on_run_start = lambda run: starts.append(None)  # type: ignore[method-assign]
    callbacks = bind(pipe, writes)
    first = pipe(**callbacks)
    next(first)
    if look:
        assert callbacks.state == "failed"
    second = pipe(**callbacks)
    assert [next(loop) for loop in (second, first, second)] == [0, 1, 1]
    assert len(starts) == 4


def test_a_kind_of_tensor_is_asked_about_once_whether_it_is_a_tensor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once for a binding, and not at each write."""
    asked: list[object] = []
    is_tensor = type(backend).is_tensor
    monkeypatch.setattr(
        backend, "is_tensor", lambda value: asked.append(value) or is_tensor(backend, value)
    )
    pipe = ToyPipeline()
    callbacks = bind(pipe, Writes())
    for _ in (1, 2):
        pipe("x", num_inference_steps=4, **callbacks)
        assert len(asked) == 1
