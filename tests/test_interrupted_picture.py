"""What an interrupted run decodes: what its previews showed, or the latents as they are.

"Right" is the bits of ``step.denoised()`` in the run's last step, and of the latents where there
are none.
"""

from __future__ import annotations

from threading import Event
from typing import Any

import numpy as np
import pytest

from unicb import Callback, Interrupt, NaNGuard, Preview, PreviewFrame, Result, Step, bind, stream
from unicb.latents.denoised import DenoisedEstimate
from unicb.latents.schedules import SchedulerFacts
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyScheduler

STEPS = 6
KEYWORDS: dict[str, Any] = {"num_inference_steps": STEPS, "output_type": "latent"}


class Note(Callback):
    """Keeps what each step has."""

    tensors = ("latents",)

    def __init__(self) -> None:
        self.latents: list[Any] = []
        self.denoised: list[Any] = []
        self.kinds: list[str] = []

    def on_step_end(self, step: Step) -> None:
        self.latents.append(step.ops.to_numpy(step["latents"]))
        self.kinds.append(step.denoised_kind)
        x0 = step.denoised()
        assert (x0 is None) == (step.denoised_kind == "none")
        assert x0 is None or (x0.shape, x0.dtype) == (step["latents"].shape, step["latents"].dtype)
        self.denoised.append(None if x0 is None else step.ops.to_numpy(x0))


class AncestralScheduler(ToyScheduler):
    """A scheduler of which nothing is known."""

    def step(self, noise: Any, timestep: Any, sample: Any) -> Any:
        return super().step(noise, timestep, sample)


@pytest.mark.parametrize("index", range(1, STEPS))
def test_it_is_the_denoised_one(index: int) -> None:
    pipe, note = ToyPipeline(), Note()
    out = bind(pipe, note, Interrupt(index))("x", **KEYWORDS)
    assert np.array_equal(out, note.denoised[index])
    assert np.array_equal(out, note.latents[index]) == (index == STEPS - 1)
    out = bind(pipe, Interrupt(index, picture="latents"))("x", **KEYWORDS)
    assert np.array_equal(out, note.latents[index])


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("picture", ["denoised", "latents"])
def test_asked_from_outside(picture: Any, unpacked: bool) -> None:
    pipe, note = ToyPipeline(), Note()

    def press_stop(pipe: Any, index: int, timestep: Any, tensors: Any) -> None:
        if index == 2:
            callbacks.interrupt(picture=picture)

    callbacks = bind(pipe, note, press_stop)
    out = pipe("x", **KEYWORDS, **callbacks) if unpacked else callbacks("x", **KEYWORDS)
    assert np.array_equal(out, (note.denoised if picture == "denoised" else note.latents)[2])


def test_without_any_other_callback() -> None:
    """The estimate needs the latents of two steps: they are looked at in any run."""
    pipe, note = ToyPipeline(), Note()
    bind(pipe, note)("x", **KEYWORDS)
    out = bind(pipe, Interrupt(3))("x", **KEYWORDS)
    assert np.array_equal(out, note.denoised[3])


def test_first_step_has_none() -> None:
    pipe, note = ToyPipeline(), Note()
    out = bind(pipe, note, Interrupt(0))("x", **KEYWORDS)
    assert note.kinds == ["none"]
    assert np.array_equal(out, note.latents[0])


@pytest.mark.parametrize("index", [1, 2, 3, 4])
def test_schedulers_of_order_2(index: int) -> None:
    """In a half step there is one already: that of the whole step."""
    pipe, note = ToyPipeline(order=2), Note()
    bind(pipe, note)("x", **KEYWORDS)
    out = bind(pipe, Interrupt(index))("x", **KEYWORDS)
    expected = note.latents[1] if index == 1 else note.denoised[index]
    assert np.array_equal(out, expected)
    whole = note.denoised[3] if index in (2, 3) else out
    assert index < 2 or np.array_equal(note.denoised[index], whole)


def test_it_is_what_the_preview_showed() -> None:
    pipe, frames = ToyPipeline(), list[PreviewFrame]()
    out = bind(pipe, Preview(frames, size=None), Interrupt(3))("x", **KEYWORDS)
    shown = list[PreviewFrame]()
    bind(pipe, Show(out), Preview(shown))("x", **KEYWORDS)
    pictures = [np.asarray(one[-1].images[0]).astype(int) for one in (frames, shown)]
    # A Preview maps both latents to colours before it solves for x0.
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    assert frames[-1].source == "exact"


class Show(Callback):
    """Has these be the finished latents."""

    tensors = ("latents",)

    def __init__(self, latents: Any) -> None:
        self._latents = latents

    def on_step_end(self, step: Step) -> None:
        step["latents"] = StrictTensor(self._latents)


def test_scheduler_whose_noise_is_fresh() -> None:
    pipe, note = ToyPipeline(), Note()
    pipe.scheduler = AncestralScheduler()
    out = bind(pipe, note, Interrupt(3))("x", **KEYWORDS)
    assert np.array_equal(out, note.latents[3])
    assert {*note.kinds} == {"none"}


def test_latents_that_when_writes_are_decoded() -> None:
    def zero(step: Step) -> bool:
        if step.index == 2:
            step["latents"] = step["latents"] * 0
        return step.index == 2

    assert not bind(ToyPipeline(), Interrupt(when=zero))("x", **KEYWORDS).any()


class Stop(Callback):
    """Stops in its own words."""

    tensors = ("latents",)

    def __init__(self, writes: bool, **picture: Any) -> None:
        self._writes, self._picture = writes, picture

    def on_step_end(self, step: Step) -> None:
        if step.index == 3:
            if self._writes:
                step["latents"] = step["latents"] * 0
            step.interrupt(**self._picture)


@pytest.mark.parametrize("picture", [None, "denoised", "latents"])
@pytest.mark.parametrize("writes", [False, True])
def test_a_callback_of_ones_own(writes: bool, picture: Any) -> None:
    """What it has written as it stops is decoded, unless it says otherwise."""
    pipe, note = ToyPipeline(), Note()
    out = bind(pipe, note, Stop(writes, picture=picture))("x", **KEYWORDS)
    latents = note.latents[3] * (not writes)
    denoised = picture == "denoised" or (picture is None and not writes)
    assert np.array_equal(out, note.denoised[3] if denoised else latents)


def test_guard_goes_back_to_its_own_latents() -> None:
    pipe, note = ToyPipeline(), Note()

    class Spoil(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            if step.index == 3:
                step["latents"] = step["latents"] * float("nan")

    with pytest.warns(RuntimeWarning, match="went back"):
        out = bind(pipe, note, Spoil(), NaNGuard("stop", every=1))("x", **KEYWORDS)
    assert np.array_equal(out, note.latents[2])


def test_plain_functions_flag_keeps_its_meaning() -> None:
    pipe, note = ToyPipeline(), Note()

    def stop(pipe: Any, index: int, timestep: Any, tensors: Any) -> None:
        pipe._interrupt = index == 3

    assert np.array_equal(bind(pipe, note, stop)("x", **KEYWORDS), note.latents[3])


@pytest.mark.parametrize("picture", ["denoised", "latents"])
def test_of_a_stream(picture: Any) -> None:
    pipe, note = ToyPipeline(), Note()
    events: Any = None

    class PressStop(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 2:
                started.wait(20)
                events.interrupt(picture=picture)

    started = Event()
    events = stream(pipe, "x", **KEYWORDS, callbacks=[note, PressStop()])
    started.set()
    out = next(e.output for e in events if isinstance(e, Result))
    assert np.array_equal(out, (note.denoised if picture == "denoised" else note.latents)[2])


def test_no_word_for_it() -> None:
    pipe = ToyPipeline()
    with pytest.raises(ValueError, match="picture must be 'denoised' or 'latents', not 'x'"):
        Interrupt(3, picture="x")  # type: ignore[arg-type]
    callbacks = bind(pipe, Stop(False, picture="x"))
    with pytest.raises(ValueError, match="not 'x'"):
        callbacks.interrupt(picture="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not 'x'"):
        callbacks("x", **KEYWORDS)


def test_what_goes_wrong_with_it_costs_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, note = ToyPipeline(), Note()
    plain = bind(pipe, note)("x", **KEYWORDS)

    def fails(self: Any, *latents: Any) -> None:
        raise AttributeError("no sigmas")

    monkeypatch.setattr(DenoisedEstimate, "between", fails)
    assert np.array_equal(bind(pipe, Interrupt(STEPS))("x", **KEYWORDS), plain)
    with pytest.warns(RuntimeWarning, match="latents as they are.*AttributeError: no sigmas"):
        out = bind(pipe, Interrupt(3))("x", **KEYWORDS)
    assert np.array_equal(out, note.latents[3])


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, "exact"),
        ({"eta": 0.0}, "exact"),
        ({"eta": None}, "exact"),
        ({"eta": 0.3}, None),
        ({"eta": 1}, None),
        ({"eta": StrictTensor(np.zeros(1))}, None),
        ({"generator": object()}, "exact"),
    ],
)
def test_fresh_noise_that_the_call_asks_for(given: dict[str, Any], kind: str | None) -> None:
    class Noisy(ToyScheduler):
        unicb_facts = SchedulerFacts("this file", noisy_if_passed=("eta",))

    assert DenoisedEstimate.kind_of(Noisy(), given) == kind


class TwoSchedules(ToyPipeline):
    """Gets a new schedule in the middle of its loop, whose index counts on."""

    def __init__(self) -> None:
        super().__init__()
        self.unet.forward, forward = self._rescheduled, self.unet.forward  # type: ignore[method-assign]
        self._forward, self.calls = forward, 0

    def _rescheduled(self, sample: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == 4:
            self.scheduler.sigmas = self.scheduler.sigmas.copy()
        return self._forward(sample, *args, **kwargs)


@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("asked_twice", [False, True])
def test_no_estimate_between_two_schedules(asked_before: bool, asked_twice: bool) -> None:
    """Whoever asks first, and however often: the step at which a new schedule is seen has none."""
    kinds: dict[int, str] = {}

    class Ask(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            if step.index == 3 or (asked_before and step.index < 3):
                kinds[step.index] = step.denoised_kind
                if asked_twice:
                    assert step.denoised_kind == kinds[step.index]
                assert (step.denoised() is None) == (kinds[step.index] == "none")

    pipe = TwoSchedules()
    keep: list[Any] = []

    class Keep(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            keep.append(step.ops.to_numpy(step["latents"]))

    out = bind(pipe, Keep(), Ask(), Interrupt(3))("x", guidance_scale=1.0, **KEYWORDS)
    assert kinds[3] == "none"
    assert not asked_before or kinds[2] == "exact"
    assert np.array_equal(out, keep[3])
