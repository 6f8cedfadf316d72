"""What a step's end does not do twice: the shortcuts of a run's steps, and that they are safe."""

from __future__ import annotations

from typing import Any

import pytest

from unicb import Callback, Step, bind, binding
from unicb_numpy import backend
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
    look = binding.loop_frame_id

    def counted(pipeline: Any, frame: Any) -> Any:
        found.append(frame.f_code)
        return look(pipeline, frame)

    monkeypatch.setattr(binding, "loop_frame_id", counted)
    return found


def test_a_loop_is_looked_for_once_a_run(walks: list[object]) -> None:
    pipe, writes = ToyPipeline(), Writes()
    callbacks = bind(pipe, writes)
    for run in (1, 2):
        pipe("x", num_inference_steps=6, **callbacks)
        assert len(walks) == run
    assert writes.seen == [*range(6)] * 2


def test_a_function_between_the_loop_and_the_binding(walks: list[object]) -> None:
    """It is another caller at each step, and the run is one all the same."""
    pipe, writes = ToyPipeline(), Writes()
    starts: list[None] = []
    writes.on_run_start = lambda: starts.append(None)  # type: ignore[method-assign]
    keywords = dict(bind(pipe, writes))
    callback = keywords["callback_on_step_end"]
    keywords["callback_on_step_end"] = lambda *arguments: callback(*arguments)
    pipe("x", num_inference_steps=6, **keywords)
    assert writes.seen == [*range(6)]
    assert len(starts) == 1
    assert len(walks) == 6


def test_two_loops_of_one_call_are_two_runs(walks: list[object]) -> None:
    """Another call of the same code is another caller, and not taken for the first."""

    class Twice(ToyPipeline):
        def __call__(self, *args: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
            for _ in range(2):
                found = super().__call__(*args, callback_on_step_end=callback_on_step_end, **kwargs)
            return found

    pipe, writes = Twice(), Writes()
    starts: list[None] = []
    writes.on_run_start = lambda: starts.append(None)  # type: ignore[method-assign]
    pipe("x", num_inference_steps=3, **bind(pipe, writes))
    assert writes.seen == [0, 1, 2] * 2
    assert len(starts) == 2


def test_a_write_asks_once_whether_it_is_a_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    is_tensor = type(backend).is_tensor
    monkeypatch.setattr(
        backend, "is_tensor", lambda value: asked.append(value) or is_tensor(backend, value)
    )
    pipe = ToyPipeline()
    pipe("x", num_inference_steps=4, **bind(pipe, Writes()))
    assert len(asked) == 4
