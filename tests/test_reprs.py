"""What is bound, streamed and returned says in one line what it is."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unicb
from unicb import Binding, Callback, CFGCutoff, Preview, Result, Step, bind, stream
from unicb.sinks import Animation, Background, ContactSheet, FileSink
from unicb_numpy.pipelines import ToyPipeline

#: Made and shown like this; what is shown makes the same again.
ROUND_TRIPS = [
    "CFGCutoff(0.4)",
    "CFGCutoff(cutoff_step_index=3)",
    "GuidanceInterval(0.2, 0.8)",
    "GuidanceSchedule([(0.0, 7.5), (1.0, 2.0)])",
    "AdaptiveProjectedGuidance(7.0, eta=0.5)",
    "ClassifierFreeZeroStarGuidance(zero_init_steps=0)",
    "TangentialClassifierFreeGuidance()",
    "GuidanceRescale(AdaptiveProjectedGuidance(7.0), 0.3)",
    "Interrupt(12)",
    "Interrupt(deadline=2.5)",
    "IPAdapterScale(0.5)",
    "IPAdapterCutoff(0.4)",
    "LatentCorrection(centre=0.5, clamp=4.0)",
    "NaNGuard('warn', every=5)",
    "Preview('steps/{step:03d}.png', every=5)",
    "Preview([])",
    "Preview(Animation('run.webp'))",
    "Progress('plain')",
    "PromptSchedule([(0.0, 'a cat'), (0.5, 'a dog')])",
    "PromptWeights({'a cat': 1.0, 'a dog': 0.5})",
    "StepTimer(wait=False)",
    "Trajectory('run.npz')",
]


def made(text: str) -> Any:
    names = {name: getattr(unicb, name) for name in unicb.__all__}
    return eval(text, {**names, "Animation": Animation})


@pytest.mark.parametrize("text", ROUND_TRIPS)
def test_round_trips(text: str) -> None:
    assert repr(made(text)) == text


def test_every_public_callback_is_among_them() -> None:
    public = {
        name
        for name in unicb.__all__
        if inspect.isclass(kind := getattr(unicb, name))
        and issubclass(kind, Callback)
        and not inspect.isabstract(kind)
    }
    assert public == {text.partition("(")[0] for text in ROUND_TRIPS}


class Mine(Callback):
    def __init__(self, *things: Any, **named: Any) -> None:
        pass

    def on_step_end(self, step: Step) -> None:
        pass


class Bare(Callback):
    def on_step_end(self, step: Step) -> None:
        pass


def example(frame: object) -> None:
    pass


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (np.zeros((64, 64)), "<ndarray>"),
        (ToyPipeline(), "<ToyPipeline>"),
        (example, "example"),
        (len, "len"),
        (ToyPipeline, "ToyPipeline"),
        (list(range(50)), "<list>"),
        (deque(), "<deque>"),
        ({"up": [0.0, 1.0]}, "{'up': [0.0, 1.0]}"),
        ((1,), "(1,)"),
        (True, "True"),
        ("two\nlines", r"'two\nlines'"),
        ("x" * 100, "'" + "x" * 55 + "...'"),
        (FileSink(Path("a") / "{step}.png"), "FileSink('a/{step}.png')"),
        (ContactSheet("a.png"), "ContactSheet('a.png')"),
        (Background("a{step}.png"), "Background(FileSink('a{step}.png'))"),
        (Background(example), "Background(example)"),
    ],
)
def test_what_one_of_ones_own_was_given(given: Any, shown: str) -> None:
    assert repr(Mine(given)) == f"Mine({shown})"
    assert repr(Mine(scale=given)) == f"Mine(scale={shown})"


def test_nothing_is_kept_of_what_it_was_given() -> None:
    array = np.zeros(4)
    mine = Mine(array)
    assert all(value is not array for value in vars(mine).values())


def test_arguments_are_refused_as_before() -> None:
    assert repr(Bare()) == "Bare()"
    with pytest.raises(TypeError, match="Bare"):
        Bare(3)  # type: ignore[call-arg]


def pickled(callback: Any) -> Any:
    return pickle.loads(pickle.dumps(callback))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_says_the_same(again: Any) -> None:
    assert repr(again(CFGCutoff(0.4))) == "CFGCutoff(0.4)"


def test_binding(pipe: ToyPipeline) -> None:
    def shrink(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
        pass

    callbacks: Binding = bind(pipe, CFGCutoff(0.4), Preview([]), shrink)
    shown = repr(callbacks)
    assert shown.startswith("<Binding of ToyPipeline: CFGCutoff(0.4), Preview([]), ")
    assert shown.endswith("shrink>")
    callbacks("x")
    assert repr(bind(pipe)) == "<Binding of ToyPipeline: no callbacks>"


def test_stream_and_result(pipe: ToyPipeline) -> None:
    events = stream(pipe, "x", num_inference_steps=3, backlog=3)
    assert repr(events) == "<Stream of ToyPipeline: not begun>"
    next(events)
    assert repr(events).startswith("<Stream of ToyPipeline: ")
    *_, last = events
    assert repr(events) == "<Stream of ToyPipeline: finished>"
    assert repr(last) == "<Result: ndarray>"
    assert repr(Result([1])) == "<Result: list>"


def test_a_stream_that_was_closed(pipe: ToyPipeline) -> None:
    events = stream(pipe, "x")
    events.close()
    assert repr(events) == "<Stream of ToyPipeline: closed>"


def test_a_stream_under_way(pipe: ToyPipeline) -> None:
    seen: list[str] = []

    class Look(Callback):
        def on_step_end(self, step: Step) -> None:
            seen.append(repr(events))

    events = stream(pipe, "x", num_inference_steps=2, callbacks=[Look()])
    for _ in events:
        pass
    assert seen[1] == "<Stream of ToyPipeline: under way, 1 steps done>"
