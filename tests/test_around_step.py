"""Loops that put a picture back after the step, or step frames as rows: callbacks see, and write,
what the loop goes on with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from looking import Look
from scheduled import OPS, FramesPipeline, PuttingBackPipeline, ScheduledPipeline, Scheduler
from test_without_callback import reference, rows_of

from unicb import Callback, CFGCutoff, Interrupt, Loop, Step, UnsupportedPipelineError, bind
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyUNet


class Noting:
    """Stands before a denoiser, and notes the latents that each step begins with."""

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.seen, self._unet = pipe, list[Any](), pipe.unet

    def __enter__(self) -> list[Any]:
        def noted(latents: StrictTensor, *args: Any, **kwargs: Any) -> Any:
            self.seen.append(latents.data.copy())
            return self._unet(latents, *args, **kwargs)

        self.pipe.unet = noted
        return self.seen

    def __exit__(self, *error: object) -> None:
        self.pipe.unet = self._unet


class Edit(Callback):
    tensors = ("latents",)

    def on_step_end(self, step: Step) -> None:
        if step.index == 2:
            step["latents"] = step["latents"] * 0.5


KINDS = [PuttingBackPipeline, FramesPipeline]


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_see_what_the_loop_goes_on_with(kind: Any) -> None:
    pipe, look = kind(), Look()
    with Noting(pipe) as begun:
        plain = pipe("a cat")
    assert np.array_equal(bind(pipe, look)("a cat"), plain)
    assert look.seen == [(i, 6) for i in range(6)]
    for seen, expected in zip(look.latents, [*begun[1:], plain], strict=True):
        assert seen.shape == (1, 4, 8, 8)
        assert np.array_equal(seen, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_edit_reaches_the_loop(kind: Any) -> None:
    pipe, look = kind(), Look()
    with Noting(pipe) as begun:
        plain = pipe("a cat")
    with Noting(pipe) as edited:
        callbacks = bind(pipe, look, Edit())
        callbacks("a cat")
    half = begun[3] * np.float32(0.5)
    if kind is PuttingBackPipeline:  # outside of the mask, the picture is put back
        mask = np.broadcast_to(pipe.mask.data, half.shape) == 1
        half = np.where(mask, half, np.broadcast_to(pipe.picture.data, half.shape))
    assert np.array_equal(edited[3], half)
    assert not np.array_equal(edited[4], begun[4])
    assert np.array_equal(pipe("a cat"), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_run_returns_the_latents_of_the_stop(kind: Any) -> None:
    pipe, look = kind(), Look()
    bind(pipe, look)("a cat")
    latents = bind(pipe, Interrupt(3, picture="latents"))("a cat")
    assert np.array_equal(latents, look.latents[3])


@pytest.mark.parametrize("kind", KINDS)
def test_denoised_has_the_shape_of_the_latents(kind: Any) -> None:
    found: list[Any] = []

    class Denoised(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            x0 = step.denoised()
            found.append((step.denoised_kind, None if x0 is None else x0.shape))

    bind(kind(), Denoised())("a cat")
    assert {shape for _, shape in found if shape is not None} <= {(1, 4, 8, 8)}


class Scales(ScheduledPipeline):
    """What it does is no putting back: an edit would be made smaller, too."""

    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        other, mask = embeds, embeds
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            latents = latents * mask + other * (2 - mask)
        return latents.data


class Draws(ScheduledPipeline):
    """It draws noise after the step: to do that once more would change the picture."""

    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        mask = embeds
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            noise = np.random.normal(latents.shape)
            latents = latents * mask + noise * (1 - mask)
        return latents.data


class Squares(ScheduledPipeline):
    """Before the step, it does more than to move numbers."""

    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = (latents * latents).reshape((4, 8, 8))
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            latents = latents[None, :].reshape((1, 4, 8, 8))
        return latents.data


class Chosen(ScheduledPipeline):
    """In some rounds, a picture is put back, and it is counted how often."""

    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        mask, count = embeds, [0]
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            if count.append(1) is None:
                latents = latents * mask + embeds * (1 - mask)
        return latents.data


class Enlarges(ScheduledPipeline):
    """It makes its latents larger before a picture is put back: an edit would be made so, too."""

    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        mask, timesteps = embeds, self.scheduler.set_timesteps(4)
        for t in timesteps:
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            latents = latents * 2.0
            latents = latents * mask + embeds * (1 - mask)
        return latents.data


class Follows(ScheduledPipeline):
    """What it puts back follows from its latents."""

    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        mask, timesteps = embeds, self.scheduler.set_timesteps(4)
        for t in timesteps:
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            turned = latents.swapaxes(2, 3)
            latents = latents * mask + turned * (1 - mask)
        return latents.data


class AddsUp(ScheduledPipeline):
    """Its two shares look as if they were 1 together, and are not."""

    def __call__(self, prompt: str, share: float = 0.1) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        mask, timesteps = embeds, self.scheduler.set_timesteps(4)
        for t in timesteps:
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            latents = latents * (1 - mask - share) + embeds * (mask - share)
        return latents.data


@pytest.mark.parametrize("kind", [Scales, Draws, Squares, Chosen, Enlarges, Follows, AddsUp])
def test_anything_else_is_refused(kind: Any) -> None:
    with pytest.raises(UnsupportedPipelineError, match="changes latents otherwise"):
        bind(kind())


class Turned(ScheduledPipeline):
    """It does not shape its latents back as they were."""

    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = latents.swapaxes(2, 3)
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            latents = latents.reshape((1, 4, 8, 8))
        return latents.data


def test_edit_that_the_loop_would_turn_is_an_error() -> None:
    pipe, look = Turned(), Look()
    plain = pipe("a cat")
    assert np.array_equal(bind(pipe, look)("a cat"), plain)
    assert np.array_equal(look.latents[-1], plain)
    with pytest.raises(UnsupportedPipelineError, match="does not give them back as they were"):
        bind(pipe, Edit())("a cat")
    assert type(pipe.scheduler) is Scheduler
    assert np.array_equal(pipe("a cat"), plain)


def test_cut_where_frames_are_rows_of_the_step() -> None:
    """The first step with guidance is seen in the latents' shape."""
    pipe, after = FramesPipeline(), 2
    rows = rows_of(pipe)
    expected, full = reference(pipe, after, "a cat", guidance_scale=5.0), pipe("a cat", 5.0)
    rows.clear()
    made = bind(pipe, CFGCutoff(cutoff_step_index=after))("a cat", 5.0)
    assert np.abs(made - expected).max() <= 1e-5 * expected.std()
    assert np.abs(full - expected).max() > 1e-3 * expected.std()
    assert rows == [2] * (after + 1) + [1] * (5 - after)


def frames_by_hand(unet: ToyUNet, scheduler: Scheduler) -> None:
    latents, embeds = ScheduledPipeline().begin("a cat", 0, 5.0)
    scheduler.set_timesteps(6)
    for t in scheduler.timesteps:
        both = unet(OPS.concat([latents, latents]), t, encoder_hidden_states=embeds)
        u, c = OPS.chunk(both, 2)
        noise = (u + (c - u) * 5.0).swapaxes(1, 2).reshape((8, 4, 8))
        rows = latents.swapaxes(1, 2).reshape((8, 4, 8))
        rows = scheduler.step(noise, t, rows).prev_sample
        latents = rows.reshape((1, 8, 4, 8)).swapaxes(1, 2)


def test_loop_of_ones_own_with_frames_as_rows_of_the_step() -> None:
    """Nobody says how its rows come about, so that a cut would find nothing to cut."""
    unet, scheduler = ToyUNet(), Scheduler()
    loop = Loop(unet=unet, scheduler=scheduler, guidance="batch")
    with pytest.raises(UnsupportedPipelineError, match="cannot cut guidance"):  # noqa: SIM117
        with bind(loop, CFGCutoff(0.4)):
            frames_by_hand(unet, scheduler)
