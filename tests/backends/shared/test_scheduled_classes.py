"""Real classes whose loops call no step-end callback: seen step by step, edited, cut, stopped."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import ways
from here import NAME, backend, on
from without_callback import KINDS, Kind, Plain, looked_at

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    GuidanceInterval,
    Step,
    UnsupportedPipelineError,
    bind,
)

STEPS, AFTER = 6, 3  # of Heun's half steps, this ends a whole one
#: In standard deviations; guidance changes at least 20 times as much.
EXACT = 2e-6
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
FX = ways.framework(NAME)


@cache
def built(name: str, scheduler: str) -> tuple[Kind, Any]:
    FX.seed()
    return KINDS[name], KINDS[name].build(FX, scheduler)


def plain(name: str, scheduler: str, guided: bool = True, cut_after: int | None = None) -> Plain:
    kind, pipe = built(name, scheduler)
    with looked_at(FX, pipe, kind, cut_after) as seen:
        seen.made = pipe(**kind.arguments(FX, 2, STEPS, guided))
    return seen


class Look(Callback):
    tensors = ("latents",)

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, float]] = []
        self.latents: list[Any] = []

    def on_step_end(self, step: Step) -> None:
        self.steps.append((step.index, step.num_timesteps, step.timestep))
        self.latents.append(step.ops.to_numpy(step["latents"]).copy())


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


@pytest.mark.skipif(NAME == "mindspore", reason="one class is run there")
def test_doubled_rows_cut_before_the_first_step() -> None:
    """The first step is computed whole, and made anew, for both copies of each row."""
    kind, pipe = built("DiTPipeline", "DDIMScheduler")
    expected, look = plain("DiTPipeline", "DDIMScheduler", guided=False), Look()
    with looked_at(FX, pipe, kind) as seen:
        bind(pipe, GuidanceInterval(0.9, 1.0), look)(**kind.arguments(FX, 2, STEPS, True))
    assert seen.rows == [4, 2, 2, 2, 2, 4]
    for ours, theirs in zip(look.latents[:5], expected.latents, strict=False):
        assert np.abs(ours - theirs).max() <= 10 * EXACT * theirs.std()  # of other numbers of rows
    assert np.abs(look.latents[5] - expected.latents[5]).max() > 200 * EXACT


@pytest.mark.skipif(NAME == "mindspore", reason="one class is run there")
def test_doubled_rows_that_are_scaled_are_refused() -> None:
    """Its loop keeps what the scheduler scales for the model."""
    _, pipe = built("DiTPipeline", "EulerDiscreteScheduler")
    with pytest.raises(UnsupportedPipelineError, match="a EulerDiscreteScheduler scales them"):
        bind(pipe, Look())


#: Classes, and why their steps cannot be told by their scheduler.
REFUSED = {
    "IFInpaintingPipeline": r"`intermediate_images = \(1 - mask_image\)",
    "IFInpaintingSuperResolutionPipeline": r"`intermediate_images = \(1 - mask_image\)",
    "KandinskyCombinedPipeline": "no loop that calls self.scheduler.step",
    "StableUnCLIPPipeline": "steps with prior_scheduler and scheduler",
    "StableDiffusionDiffEditPipeline": r"`latents = latents \* mask_image",
    "StableDiffusionParadigmsPipeline": "no loop that calls self.scheduler.step",
    "TextToVideoSDPipeline": r"`latents = latents\.permute",
    "StableDiffusionGLIGENPipeline": "changes latents otherwise",
    "UnCLIPPipeline": "steps with decoder_scheduler",
    "RePaintPipeline": "exactly once",
    "KarrasVePipeline": "not what it took from the last one",
}


@pytest.mark.skipif(NAME == "mindspore", reason="the loops are diffusers', as they are written")
@pytest.mark.parametrize("name", REFUSED)
def test_classes_that_would_be_wrong(name: str) -> None:
    from unicb.pipelines.scheduled import scheduled_loop

    kind = getattr(FX.library, name, None) or pytest.skip("not in this release")
    with pytest.raises(UnsupportedPipelineError, match=REFUSED[name]):
        scheduled_loop(kind)
