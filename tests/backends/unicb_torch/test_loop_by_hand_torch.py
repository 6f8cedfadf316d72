"""A loop of one's own around a real denoiser and diffusers' schedulers."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import ways
from here import NAME
from without_callback import embeds, unet

from unicb import BackendNotFoundError, Callback, CFGCutoff, Interrupt, Loop, Step, bind

FX = ways.framework(NAME)
STEPS, SCALE, AFTER = 6, 8.0, 1  # which ends a whole one of Heun's half steps
SCHEDULERS = (
    "DDIMScheduler",
    "PNDMScheduler",
    "HeunDiscreteScheduler",
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
)


class Look(Callback):
    tensors = ("latents",)

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.latents: list[Any] = []

    def on_step_end(self, step: Step) -> None:
        self.steps.append((step.index, step.num_timesteps))
        self.latents.append(step["latents"].clone())


@pytest.fixture(scope="module")
def model() -> Any:
    FX.seed()
    return unet(FX, 4, 4)


@torch.no_grad()
def denoise(model: Any, scheduler: Any, guidance: str, cut_after: int | None = None) -> Any:
    """The twenty lines of one's own; with ``cut_after``, as a cut would have it."""
    scheduler.set_timesteps(STEPS)
    latents = FX.normal(2, 4, 8, 8, seed=5) * scheduler.init_noise_sigma
    negative, positive = embeds(FX, 2, 1), embeds(FX, 2, 2)
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.scale_model_input(latents, t)
        if guidance == "batch":
            both = model(
                torch.cat([x, x]), t, encoder_hidden_states=torch.cat([negative, positive])
            )
            u, c = both.sample.chunk(2)
        else:
            c = model(x, t, encoder_hidden_states=positive).sample
            u = model(x, t, encoder_hidden_states=negative).sample
        if cut_after is not None and i > cut_after:
            u = c
        latents = scheduler.step(u + SCALE * (c - u), t, latents).prev_sample
    return latents


@pytest.mark.parametrize("guidance", ["batch", "calls"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_seen_and_cut(model: Any, name: str, guidance: Any) -> None:
    scheduler = FX.scheduler(name)
    plain, look = denoise(model, scheduler, guidance), Look()
    loop = Loop(unet=model, scheduler=scheduler, guidance=guidance)
    with bind(loop, look):
        made = denoise(model, scheduler, guidance)
    assert torch.equal(made, plain)
    count = len(scheduler.timesteps)
    assert look.steps == [(i, count) for i in range(count)]
    assert torch.equal(look.latents[-1], plain)
    expected = denoise(model, scheduler, guidance, cut_after=AFTER).numpy()
    rows: list[int] = []
    handle = model.conv_in.register_forward_hook(lambda m, args, out: rows.append(len(args[0])))
    with bind(loop, CFGCutoff(cutoff_step_index=AFTER)):
        cut = denoise(model, scheduler, guidance).numpy()
    handle.remove()
    assert np.abs(cut - expected).max() <= 2e-6 * expected.std()
    assert np.abs(plain.numpy() - expected).max() > 4e-5 * expected.std()
    whole, rest = ([4], [2]) if guidance == "batch" else ([2, 2], [2])
    assert rows == whole * (AFTER + 1) + rest * (count - AFTER - 1)
    assert torch.equal(denoise(model, scheduler, guidance), plain)


def test_interrupt(model: Any) -> None:
    scheduler, look = FX.scheduler("DDIMScheduler"), Look()
    with bind(Loop(unet=model, scheduler=scheduler), look, Interrupt(2, picture="latents")) as run:
        made = denoise(model, scheduler, "batch")
    assert (run.state, len(look.steps)) == ("interrupted", 3)
    assert torch.equal(made, look.latents[-1])


def test_denoiser_that_is_of_no_library() -> None:
    class Own(torch.nn.Module):
        pass

    class OfDiffusers(diffusers.ModelMixin):
        pass

    scheduler = FX.scheduler("DDIMScheduler")
    with pytest.raises(BackendNotFoundError, match=r"denoiser of a Loop.*ModelMixin"):
        bind(Loop(unet=Own(), scheduler=scheduler), Look())
    bind(Loop(unet=OfDiffusers(), scheduler=scheduler), Look())
