"""initial_latents on the frameworks' own pipelines: what their loops start with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import ways
from here import NAME, backend, diffusers

from unicb.errors import UnsupportedPipelineError
from unicb.latents.initial import initial_latents
from zoo.entry import Request


class Started(Exception):
    """Raised by the first step, with what it got."""


@pytest.mark.parametrize(
    ("title", "scheduler"),
    [
        ("StableDiffusionPipeline", "EulerDiscreteScheduler"),
        ("StableDiffusionPipeline", "DDIMScheduler"),
        ("StableDiffusionXLPipeline", "EulerDiscreteScheduler"),
        ("StableDiffusion3Pipeline", ""),
        ("FluxPipeline", ""),
    ],
)
def test_the_loop_starts_with_them(title: str, scheduler: str) -> None:
    """The first step gets numpy's draw, times the scheduler's init_noise_sigma, once."""
    pipe = ways.pipeline(NAME, title)
    before = pipe.scheduler
    if scheduler:
        pipe.scheduler = getattr(diffusers, scheduler).from_config(before.config)
    request = Request(prompts=2)
    fx = ways.framework(NAME)
    called = ways.all_entries(NAME)[title].arguments(fx, pipe, request)
    size = {side: called[side] for side in ("height", "width") if side in called}
    latents = initial_latents(pipe, 5, batch=request.rows, **size)
    ops = backend.ops
    drawn = np.random.default_rng(5).normal(size=tuple(latents.shape))
    np.testing.assert_array_equal(ops.to_numpy(latents), drawn.astype(np.float32))
    if title.startswith("Flux"):
        assert len(latents.shape) == 3
    else:
        assert tuple(latents.shape[:2]) == (request.rows, pipe.vae.config.latent_channels)

    def step(model_output: Any, timestep: Any, sample: Any, *rest: Any, **more: Any) -> Any:
        raise Started(ops.to_numpy(sample))

    pipe.scheduler.step = step
    try:
        with pytest.raises(Started) as caught:
            pipe(**{**called, "latents": latents})
        sigma = float(getattr(pipe.scheduler, "init_noise_sigma", 1.0))
    finally:
        del pipe.scheduler.step
        pipe.scheduler = before
    if scheduler.startswith("Euler"):
        assert sigma > 5
    np.testing.assert_allclose(caught.value.args[0], drawn * sigma, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("title", "why"),
    [
        ("StableDiffusionImg2ImgPipeline", "its __call__ takes no latents"),
        ("WanPipeline", "their layout"),
    ],
)
def test_refused(title: str, why: str) -> None:
    with pytest.raises(UnsupportedPipelineError, match=why):
        initial_latents(ways.pipeline(NAME, title), 0)
