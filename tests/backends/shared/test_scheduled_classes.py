"""Real classes whose loops call no step-end callback: seen step by step, edited, cut, stopped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from here import backend, on
from scheduled_runs import EXACT, FX, STEPS, Look, built, plain
from without_callback import looked_at

from unicb import Callback, CFGCutoff, GenerationCancelled, Step, bind

AFTER = 3  # of Heun's half steps, this ends a whole one
USUAL = ("DDIMScheduler", "PNDMScheduler", "HeunDiscreteScheduler")
#: The schedulers that each class is run with. On MindSpore, where they take long, one class.
ALL = {
    "PixArtAlphaPipeline": USUAL,
    "PixArtSigmaPipeline": ("DPMSolverMultistepScheduler",),
    "IFPipeline": ("DDPMScheduler",),
    "IFImg2ImgPipeline": ("DDPMScheduler",),
    "StableDiffusionLatentUpscalePipeline": ("EulerDiscreteScheduler",),
    "StableDiffusionAdapterPipeline": USUAL,
    "DiTPipeline": ("DDIMScheduler", "PNDMScheduler"),
}
SCHEDULERS = on(torch=ALL, mindspore={"PixArtAlphaPipeline": ("DDIMScheduler",)})
CASES = [(name, scheduler) for name, found in SCHEDULERS.items() for scheduler in found]


@pytest.mark.parametrize(("name", "scheduler"), CASES)
def test_every_step_is_seen_and_nothing_changes(name: str, scheduler: str) -> None:
    kind, pipe = built(name, scheduler)
    expected, look = plain(name, scheduler), Look()
    callbacks = bind(pipe, look)
    made = callbacks(**kind.arguments(FX, 2, STEPS, True))
    count = len(expected.latents)
    assert look.steps == [(i, count, t) for i, t in enumerate(expected.timesteps)]
    for ours, theirs in zip(look.latents, expected.latents, strict=True):
        assert len(ours) == 2  # DiT's loop has each row twice
        assert np.array_equal(ours, theirs[:2])
    ends = [
        x if isinstance(x, np.ndarray) else backend.ops.to_numpy(x)
        for x in (made[0], expected.made[0])
    ]
    assert np.array_equal(*ends)
    assert callbacks.state == "finished"


@pytest.mark.parametrize(("name", "scheduler"), CASES)
def test_cut_is_exact(name: str, scheduler: str) -> None:
    kind, pipe = built(name, scheduler)
    after = min(AFTER, len(plain(name, scheduler).latents) - 2)
    full, reference = plain(name, scheduler), plain(name, scheduler, cut_after=after)
    with looked_at(FX, pipe, kind) as ours:
        bind(pipe, CFGCutoff(cutoff_step_index=after))(**kind.arguments(FX, 2, STEPS, True))
    expected = reference.latents[-1]
    assert np.abs(ours.latents[-1] - expected).max() <= EXACT * expected.std()
    assert np.abs(full.latents[-1] - expected).max() > 20 * EXACT * expected.std()
    count = len(full.latents)
    assert ours.rows == [4] * (after + 1) + [2] * (count - after - 1)
    assert np.array_equal(plain(name, scheduler).latents[-1], full.latents[-1])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_cut_leaves_a_run_without_guidance_alone(name: str) -> None:
    scheduler = SCHEDULERS[name][0]
    kind, pipe = built(name, scheduler)
    expected, look = plain(name, scheduler, guided=False), Look()
    bind(pipe, CFGCutoff(0.4), look)(**kind.arguments(FX, 2, STEPS, False))
    assert np.array_equal(look.latents[-1], expected.latents[-1][:2])


@pytest.mark.parametrize(("name", "scheduler"), CASES)
def test_edit_reaches_the_loop(name: str, scheduler: str) -> None:
    class Edits(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            if step.index == 1:
                step["latents"] = step["latents"] * 0.5

    kind, pipe = built(name, scheduler)
    with looked_at(FX, pipe, kind) as ours:
        bind(pipe, Edits())(**kind.arguments(FX, 2, STEPS, True))
    own = type(pipe.scheduler).step
    of, calls = type(pipe.scheduler), 0

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        out, calls = own(self, *args, **kwargs), calls + 1
        if calls == 2:
            made = out[0] if isinstance(out, tuple) else out.prev_sample
            FX.copy_into(made, made * 0.5)
        return out

    step.__wrapped__ = own  # type: ignore[attr-defined]
    pipe.scheduler.__class__ = type(of.__name__, (of,), {"step": step})
    try:
        expected = plain(name, scheduler)
    finally:
        pipe.scheduler.__class__ = of
    assert np.array_equal(ours.latents[-1], expected.latents[-1])
    assert not np.array_equal(ours.latents[-1], plain(name, scheduler).latents[-1])


@pytest.mark.parametrize(("name", "scheduler"), CASES)
def test_stops(name: str, scheduler: str) -> None:
    class Stops(Callback):
        def __init__(self, how: str) -> None:
            self.how = how

        def on_step_end(self, step: Step) -> None:
            if step.index == 1:
                step.interrupt(picture="latents") if self.how == "interrupt" else callbacks.cancel()

    kind, pipe = built(name, scheduler)
    before, look = plain(name, scheduler), Look()
    callbacks = bind(pipe, look, Stops("interrupt"))
    with looked_at(FX, pipe, kind) as seen:
        made = callbacks(**kind.arguments(FX, 2, STEPS, True))
    assert (callbacks.state, len(look.steps), len(seen.rows)) == ("interrupted", 2, 2)
    if name not in ("IFPipeline", "IFImg2ImgPipeline", "DiTPipeline"):  # which make pictures
        assert np.array_equal(backend.ops.to_numpy(made[0]), before.latents[1])
    callbacks = bind(pipe, Stops("cancel"))
    with pytest.raises(GenerationCancelled):
        callbacks(**kind.arguments(FX, 2, STEPS, True))
    assert np.array_equal(plain(name, scheduler).latents[-1], before.latents[-1])


def test_one_step_of_pixart_takes_another_part() -> None:
    kind, pipe = built("PixArtAlphaPipeline", "DDIMScheduler")
    look = Look()
    made = bind(pipe, look)(**kind.arguments(FX, 2, 1, True))
    assert np.array_equal(look.latents[0], backend.ops.to_numpy(made[0]))
