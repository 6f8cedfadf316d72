"""CFGCutoff beside what changes which steps a run takes, and with which models."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from test_composes import (
    STEPS,
    Call,
    Reference,
    call_of,
    check_cut,
    error,
    normal,
    rows_seen,
    seeded,
    traces,
)
from test_composes_pipelines import Build, animate_diff, flux, ltx, unet, wan

from unicb import CFGCutoff, bind
from unicb.testing.tiny import PIXELS, TEXT_WIDTH
from unicb_torch.harness import harness

# --------------------------------------------------------------------------- which steps


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler"])
@pytest.mark.parametrize(("index", "last"), [(0, 1), (1, 1), (2, 3)])
@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers, with numpy 2
def test_order_2(name: str, index: int, last: int) -> None:
    """Of the two halves of a step, the second corrects the first: a cut waits for it."""
    pipe = harness.build("order-2")
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    rows = check_cut(pipe, call_of(pipe, "order-2"), index=index, last=last)
    assert rows == [2] * (last + 1) + [1] * (2 * STEPS - 1 - last - 1)


@pytest.mark.parametrize(("index", "last"), [(0, 1), (1, 1), (2, 3)])
@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
def test_order_2_from_the_middle(index: int, last: int) -> None:
    pipe = harness.build("img2img")
    pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    call = call_of(pipe, "img2img", strength=0.5, num_inference_steps=6)
    rows = check_cut(pipe, call, index=index, last=last)
    assert len(rows) == 5


@pytest.mark.parametrize(
    "kind", ["img2img", "inpaint", "controlnet-img2img", "xl-img2img", "xl-inpaint"]
)
def test_strength(kind: str) -> None:
    """Of ten steps, the last six: the index counts these."""
    pipe = harness.build(kind)
    rows = check_cut(pipe, call_of(pipe, kind, strength=0.6, num_inference_steps=10))
    assert rows == [2, 2, 1, 1, 1, 1]


def test_denoising_end_and_start() -> None:
    """One pipeline takes the first half of the steps, and another the second: each with a cut."""
    base, refiner = harness.build("xl-text2img"), harness.build("xl-img2img")
    call = call_of(base, "xl-text2img", denoising_end=0.5, num_inference_steps=8)
    assert check_cut(base, call) == [2, 2, 1, 1]
    half_done = torch.from_numpy(call(**bind(base, CFGCutoff(0.5))))
    call = call_of(
        refiner, "xl-img2img", denoising_start=0.5, num_inference_steps=8, image=half_done
    )
    assert check_cut(refiner, call) == [2, 2, 1, 1]


@pytest.mark.parametrize(
    ("fast", "lengths"), [(False, [STEPS, STEPS]), (True, [STEPS // 2, STEPS])]
)
def test_free_init(fast: bool, lengths: list[int]) -> None:
    """It runs its loop several times, each as a run of its own; with fewer steps at first, if it
    shall be fast."""
    pipe = animate_diff()
    pipe.enable_free_init(num_iters=2, use_fast_sampling=fast)
    frames = 3
    keywords = {
        "prompt_embeds": 20 * normal(1, 4, TEXT_WIDTH),  # large: such weights show little of them
        "negative_prompt_embeds": 20 * normal(1, 4, TEXT_WIDTH, seed=2),
        "num_frames": frames,
        "height": PIXELS,
        "width": PIXELS,
        "num_inference_steps": STEPS,
        "guidance_scale": 9.0,
    }
    passes = [[2 * frames] + [frames] * (length - 1) for length in lengths]
    check_cut(pipe, seeded(pipe, keywords), index=0, rows=[*passes[0], *passes[1]])


# --------------------------------------------------------------------------- which models


@pytest.mark.parametrize("build", [unet, ltx, flux, wan])
def test_denoiser_replaced_after_bind(build: Build) -> None:
    """A binding looks for the models when it cuts."""
    pipe, call = build()
    other, _ = build()
    name = "unet" if build is unet else "transformer"
    old, new = getattr(pipe, name), getattr(other, name)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.mul_(0.9)
    first = call()
    before = traces(pipe)
    binding = bind(pipe, CFGCutoff(cutoff_step_index=1))
    assert traces(pipe) == before
    setattr(pipe, name, new)
    plain = call()
    assert error(plain, first) > 1e-3
    expected = Reference(pipe, 1, None).run(pipe, call)
    before = traces(pipe)
    with rows_seen(pipe) as rows:
        assert error(call(**binding), expected) < 1e-4
    assert sum(rows) < sum(seen_without_cut(pipe, call))
    assert traces(pipe) == before
    assert np.array_equal(call(), plain)
    setattr(pipe, name, old)
    assert np.array_equal(call(), first)


def seen_without_cut(pipe: Any, call: Call) -> list[int]:
    with rows_seen(pipe) as rows:
        call()
    return rows


@pytest.mark.parametrize("build", [unet, ltx, flux, wan])
def test_two_bindings_in_turn(build: Build) -> None:
    """Made at once, used one after the other, and again."""
    pipe, call = build()
    plain = call()
    before = traces(pipe)
    expected = [Reference(pipe, last, None).run(pipe, call) for last in (0, 2)]
    bindings = [bind(pipe, CFGCutoff(cutoff_step_index=last)) for last in (0, 2)]
    for _ in range(2):
        for binding, right in zip(bindings, expected, strict=True):
            assert error(call(**binding), right) < 1e-4
            assert traces(pipe) == before
    assert np.array_equal(call(), plain)
