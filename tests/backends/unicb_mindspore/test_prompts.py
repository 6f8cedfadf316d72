"""PromptSchedule and PromptWeights on a tiny pipeline of mindone with a text encoder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
import pytest

from unicb import bind
from unicb.callbacks.prompts import PromptSchedule, PromptWeights
from unicb.testing.tiny import PIXELS
from unicb_mindspore.harness import harness

sys.path.insert(0, str(Path(__file__).parents[1]))

from prompted import STEPS, check_switch, told

ONE, OTHER, THIRD = "a red star", "a green square", "a white ring"


@pytest.fixture(scope="module")
def pipe() -> Any:
    return harness.build("prompts")


def run(pipe: Any, prompt: Any, *callbacks: Any, images: int = 1) -> Any:
    rows = images * (1 if isinstance(prompt, str) else len(prompt))
    noise = np.random.default_rng(0).standard_normal((rows, 4, 8, 8), np.float32)
    return pipe(
        prompt,
        height=PIXELS,
        width=PIXELS,
        latents=mindspore.Tensor(noise),
        num_inference_steps=STEPS,
        num_images_per_prompt=images,
        guidance_scale=7.0,
        output_type="latent",
        **(bind(pipe, *callbacks) if callbacks else {}),
    )[0].asnumpy()


def test_the_denoiser_is_told_the_other_prompts(pipe: Any) -> None:
    images = 2
    prompts, others = [ONE, OTHER], [OTHER, THIRD]
    before, _ = told(harness, run, pipe, prompts, images=images)
    after, _ = told(harness, run, pipe, others, images=images)
    schedule = PromptSchedule([(0.0, prompts), (0.5, others)])
    found, _ = told(harness, run, pipe, prompts, schedule, images=images)
    check_switch(before, after, found, STEPS // 2)


def test_negative_prompts_and_the_same_prompt(pipe: Any) -> None:
    plain = run(pipe, ONE)
    same = run(pipe, ONE, PromptSchedule([(0.0, ONE), (0.5, ONE)]))
    np.testing.assert_allclose(same, plain, rtol=0, atol=1e-4)
    schedule = PromptSchedule([(0.0, ONE)], negative=[(0.5, OTHER)])
    found, _ = told(harness, run, pipe, ONE, schedule)
    other, _ = told(harness, run, pipe, OTHER)
    np.testing.assert_allclose(found[-1][0][0], other[-1][0][1], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found[-1][0][1], found[0][0][1])


def test_weights(pipe: Any) -> None:
    plain = [told(harness, run, pipe, text)[0][0][0][1] for text in (ONE, OTHER)]
    found, _ = told(harness, run, pipe, ONE, PromptWeights({ONE: 1, OTHER: 3}))
    mixed = 0.25 * plain[0] + 0.75 * plain[1]
    np.testing.assert_allclose(found[-1][0][1], mixed, rtol=0, atol=1e-5)
