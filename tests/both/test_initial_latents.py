"""initial_latents: one seed gives both frameworks the same noise, and so the same picture."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from figures import Distance, Noted
from recording import GUIDANCE, PROMPTS, Array, set_scheduler
from sides import SIDES

from unicb import initial_latents

STEPS = 15
#: In levels of 255. Measured, largest, on diffusers 0.42.1 and mindone 0.5.0: 0.0016 (DDIM) and
#: 0.0015 (Euler); with another seed, on one framework: 254.
SAME_PICTURE = 0.05


def pictures(pipes: dict[str, Any], name: str, seed: int) -> tuple[Array, Array]:
    """What a run starts with, and what comes of it, in levels of 255."""
    pipe, prompts = pipes[name], PROMPTS[:2]
    latents = initial_latents(pipe, seed=seed, batch=len(prompts))
    found = pipe(
        list(prompts),
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        latents=latents,
        output_type="np",
        return_dict=False,
    )[0]
    return SIDES[name].harness.backend.ops.to_numpy(latents), np.asarray(found) * 255.0


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_same_picture(pipes: dict[str, Any], figures: Noted, scheduler: str) -> None:
    """Also where the pipeline multiplies what it is given: Euler's first noise level is 14.6."""
    for name, side in SIDES.items():
        set_scheduler(side, pipes[name], scheduler)
    found = {name: pictures(pipes, name, seed=7) for name in SIDES}
    latents, images = zip(*found.values(), strict=True)
    np.testing.assert_array_equal(*latents)
    drawn = np.random.default_rng(7).normal(size=latents[0].shape).astype(np.float32)
    np.testing.assert_array_equal(latents[0], drawn)
    apart = Distance.between(*images)
    figures.add(scheduler, "initial_latents", apart)
    for each in images:
        assert all(np.abs(a - b).max() > 25 for a, b in combinations(each, 2))
    assert apart.largest < SAME_PICTURE


def test_another_seed_is_far_away(pipes: dict[str, Any]) -> None:
    set_scheduler(SIDES["torch"], pipes["torch"], "DDIMScheduler")
    one, other = (pictures(pipes, "torch", seed)[1] for seed in (7, 8))
    assert Distance.between(one, other).largest > 1000 * SAME_PICTURE
