"""What loops start with, where they are given initial latents."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import ways

from unicb.backend import backend_for
from unicb.errors import UnsupportedPipelineError
from unicb.latents.initial import initial_latents
from zoo.entry import Request

parametrized = pytest.mark.parametrize(
    ("title", "scheduler"),
    [
        ("StableDiffusionPipeline", "EulerDiscreteScheduler"),
        ("StableDiffusionPipeline", "DDIMScheduler"),
        ("StableDiffusionXLPipeline", "EulerDiscreteScheduler"),
        ("StableDiffusion3Pipeline", ""),
        ("FluxPipeline", ""),
    ],
)
refused = pytest.mark.parametrize(
    ("title", "why"),
    [
        ("StableDiffusionImg2ImgPipeline", "its __call__ takes no latents"),
        ("WanPipeline", "their layout"),
    ],
)


class Started(Exception):
    """Raised by the first step, with what it got."""


def check_start(name: str, title: str, scheduler: str) -> None:
    """The first step gets numpy's draw, times the scheduler's init_noise_sigma, once."""
    pipe = ways.pipeline(name, title)
    before = pipe.scheduler
    if scheduler:
        kind = getattr(
            importlib.import_module(type(before).__module__.split(".sched")[0]), scheduler
        )
        pipe.scheduler = kind.from_config(before.config)
    request = Request(prompts=2)
    fx = ways.framework(name)
    called = ways.all_entries(name)[title].arguments(fx, pipe, request)
    size = {side: called[side] for side in ("height", "width") if side in called}
    latents = initial_latents(pipe, 5, batch=request.rows, **size)
    ops = backend_for(pipe).ops
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


def check_refused(name: str, title: str, why: str) -> None:
    with pytest.raises(UnsupportedPipelineError, match=why):
        initial_latents(ways.pipeline(name, title), 0)
