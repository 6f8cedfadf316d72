"""Callback objects in company: sent to another process, and in several runs at once."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unicb import (
    AdaptiveProjectedGuidance,
    Callback,
    CFGCutoff,
    ClassifierFreeZeroStarGuidance,
    GuidanceInterval,
    GuidanceRescale,
    GuidanceRule,
    GuidanceSchedule,
    Interrupt,
    IPAdapterCutoff,
    IPAdapterScale,
    LatentCorrection,
    NaNGuard,
    Preview,
    PreviewFrame,
    Progress,
    PromptSchedule,
    PromptWeights,
    Step,
    StepTimer,
    TangentialClassifierFreeGuidance,
    Trajectory,
    bind,
    sibling,
)
from unicb.callbacks import cosine, linear
from unicb.sinks import Animation, Background, ContactSheet
from unicb_numpy.pipelines import ToyPipeline

#: Each built-in callback, in the forms that keep something else.
CALLBACKS: dict[str, Callback] = {
    "CFGCutoff": CFGCutoff(0.4),
    "GuidanceInterval": GuidanceInterval(0.1, 0.5),
    "GuidanceSchedule": GuidanceSchedule(linear(9.0, 4.0)),
    "GuidanceSchedule, a table": GuidanceSchedule([(0.0, 3.0), (0.5, 1.0)]),
    "AdaptiveProjectedGuidance": AdaptiveProjectedGuidance(linear(9.0, 4.0), momentum=-0.5),
    "ClassifierFreeZeroStarGuidance": ClassifierFreeZeroStarGuidance(interval=(0.1, 0.5)),
    "GuidanceRescale": GuidanceRescale(TangentialClassifierFreeGuidance(3.0)),
    "TangentialClassifierFreeGuidance": TangentialClassifierFreeGuidance(),
    "IPAdapterScale": IPAdapterScale(cosine(0.8, 0.0)),
    "IPAdapterCutoff": IPAdapterCutoff(0.4),
    "LatentCorrection": LatentCorrection(centre=0.5, clamp=[(0.0, 4.0)]),
    "NaNGuard": NaNGuard(),
    "PromptSchedule": PromptSchedule([(0.0, "a"), (0.5, "b")]),
    "PromptWeights": PromptWeights({"a": 1.0, "b": 2.0}),
    "StepTimer": StepTimer(),
    "Progress": Progress("plain"),
    "Progress, a function": Progress(print),
    "Trajectory": Trajectory("run.npz"),
    "Interrupt": Interrupt(3),
    "Interrupt, a deadline": Interrupt(deadline=20.0),
    "Preview": Preview("{step}.png"),
    "Preview, a list": Preview([]),
    "Preview, a function": Preview(print, every=2, max_fps=3.0),
    "Preview, an animation": Preview(Animation("run.gif")),
    "Preview, a sheet": Preview(ContactSheet("run.png", 3)),
    "Preview, in the background": Preview(Background(print, 3, flush_timeout=2.0)),
}


@pytest.mark.filterwarnings("error")  # a later Python may not pickle what it warns of
@pytest.mark.parametrize("name", CALLBACKS)
def test_a_callback_can_be_pickled(name: str) -> None:
    copied = pickle.loads(pickle.dumps(CALLBACKS[name]))
    assert type(copied) is type(CALLBACKS[name])
    assert vars(copied).keys() == vars(CALLBACKS[name]).keys()


def test_the_runs_of_a_copy_are_counted_on(pipe: ToyPipeline, tmp_path: Path) -> None:
    preview = Preview(str(tmp_path / "{run}-{step}.png"))
    bind(pipe, preview)("x", num_inference_steps=1)
    for copied in (pickle.loads(pickle.dumps(preview)), copy.deepcopy(preview)):
        bind(pipe, copied)("x", num_inference_steps=1)
        assert {path.name for path in tmp_path.iterdir()} == {"0-0.png", "1-0.png"}
        (tmp_path / "1-0.png").unlink()


def test_every_callback_is_there() -> None:
    import unicb

    kinds = {type(callback) for callback in CALLBACKS.values()}
    exported = [getattr(unicb, name) for name in unicb.__all__]
    builtin = {one for one in exported if isinstance(one, type) and issubclass(one, Callback)}
    assert builtin - {Callback, GuidanceRule} == kinds


def _drawn(callbacks: list[Callback]) -> Any:
    return bind(ToyPipeline(), *callbacks)("x")


def test_callbacks_sent_to_another_process(tmp_path: Path) -> None:
    template = str(tmp_path / "{step}.png")
    sent = [CFGCutoff(0.4), LatentCorrection(centre=linear(0.5, 0.0)), Preview(template)]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = pool.submit(_drawn, sent).result()
    assert len([*tmp_path.iterdir()]) == 10
    assert np.array_equal(there, _drawn(sent))


def test_two_copies_in_one_binding_are_two(pipe: ToyPipeline) -> None:
    """Of a callback that may be there twice; those that decide on the same thing are refused."""
    timer = StepTimer()
    copied = pickle.loads(pickle.dumps(timer))
    bind(pipe, timer, copied)("x")
    assert timer.times is not copied.times
    with pytest.raises(ValueError, match="decide on guidance"):
        bind(pipe, CFGCutoff(0.4), pickle.loads(pickle.dumps(CFGCutoff(0.4))))


class Within(Callback):
    """Makes another run at the end of a step."""

    def __init__(self, index: int, run: Any) -> None:
        self.index, self.run = index, run

    def on_step_end(self, step: Step) -> None:
        if step.index == self.index:
            self.run()


def pictures(frames: list[PreviewFrame], run: int) -> list[tuple[int, bytes]]:
    return [(f.step, f.images[0].tobytes()) for f in frames if f.run == run]


def test_one_preview_in_two_runs_at_once(pipe: ToyPipeline) -> None:
    """Each has all of its frames, and they say which run they are of."""
    other, frames, alone = sibling(pipe), list[PreviewFrame](), list[list[PreviewFrame]]()
    for prompt in ("x", "y"):
        alone.append([])
        bind(pipe, Preview(alone[-1]))(prompt)
    preview = Preview(frames)
    inner = bind(other, preview)
    bind(pipe, preview, Within(4, lambda: inner("y")))("x")
    assert len(frames) == 20
    assert [pictures(frames, run) for run in (0, 1)] == [pictures(found, 0) for found in alone]
    frames.clear()
    bind(pipe, preview)("x")
    assert {frame.run for frame in frames} == {2}


def test_files_of_two_runs_at_once(pipe: ToyPipeline, tmp_path: Path) -> None:
    preview = Preview(tmp_path / "{run}" / "{step}.png", every=5)
    inner = bind(sibling(pipe), preview)
    bind(pipe, preview, Within(4, lambda: inner("y")))("x")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    assert found == sorted(f"{run}/{step}.png" for run in (0, 1) for step in (0, 5, 9))


@pytest.mark.parametrize("kind", [Animation, ContactSheet])
def test_a_sink_that_collects_keeps_runs_apart(
    pipe: ToyPipeline, tmp_path: Path, kind: Any
) -> None:
    path = tmp_path / "all.gif"
    bind(pipe, Preview(kind(path)))("x")
    right = Image.open(path).size, getattr(Image.open(path), "n_frames", 1)
    preview = Preview(kind(path))
    inner = bind(sibling(pipe), preview)
    bind(pipe, preview, Within(4, lambda: inner("x")))("x")
    assert (Image.open(path).size, getattr(Image.open(path), "n_frames", 1)) == right


def test_a_throttle_for_each_run(pipe: ToyPipeline) -> None:
    """What one run has shown does not keep the other from showing its first."""
    frames: list[PreviewFrame] = []
    preview = Preview(frames, max_fps=0.001)
    inner = bind(sibling(pipe), preview)
    bind(pipe, preview, Within(4, lambda: inner("y")))("x")
    assert sorted((frame.run, frame.step) for frame in frames) == [(0, 0), (0, 9), (1, 0), (1, 9)]
