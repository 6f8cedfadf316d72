"""CFGCutoff beside what changes which steps a run takes, and runs that do not go as planned."""

from __future__ import annotations

from collections.abc import Callable
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
from test_composes_caches import flux, ltx, random, wan

from unicb import CFGCutoff, bind
from unicb_torch.harness import harness
from unicb_torch.pipelines import PIXELS, TEXT_WIDTH

Build = Callable[[], tuple[Any, Call]]


def unet() -> tuple[Any, Call]:
    pipe = harness.build("text2img")
    return pipe, call_of(pipe, "text2img")


# --------------------------------------------------------------------------- which steps


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler"])
@pytest.mark.parametrize(("index", "last"), [(0, 1), (1, 1), (2, 3)])
def test_order_2(name: str, index: int, last: int) -> None:
    """Of the two halves of a step, the second corrects the first: a cut waits for it."""
    pipe = harness.build("order-2")
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    rows = check_cut(pipe, call_of(pipe, "order-2"), index=index, last=last)
    assert rows == [2] * (last + 1) + [1] * (2 * STEPS - 1 - last - 1)


@pytest.mark.parametrize(("index", "last"), [(0, 1), (1, 1), (2, 3)])
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


def animate_diff() -> Any:
    torch.manual_seed(0)
    blocks = {
        "block_out_channels": (8, 16),
        "motion_max_seq_length": 8,
        "motion_num_attention_heads": 2,
    }
    unet = diffusers.UNetMotionModel(
        sample_size=PIXELS // 2,
        layers_per_block=1,
        down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion"),
        up_block_types=("CrossAttnUpBlockMotion", "UpBlockMotion"),
        cross_attention_dim=TEXT_WIDTH,
        num_attention_heads=2,
        norm_num_groups=4,
        **blocks,
    )
    adapter = diffusers.MotionAdapter(motion_layers_per_block=1, motion_norm_num_groups=4, **blocks)
    given = harness.build("text2img")
    pipe = diffusers.AnimateDiffPipeline(
        unet=random(unet),
        motion_adapter=adapter,
        vae=given.vae,
        scheduler=given.scheduler,
        text_encoder=None,
        tokenizer=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


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
    check_cut(pipe, seeded(pipe, keywords), index=0, rows=sum(passes, []))


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


# --------------------------------------------------------------------------- failures


class OnPurpose(Exception):
    pass


def in_callback(pipe: Any) -> Callable[..., Any]:
    def fail(pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == 2:
            raise OnPurpose
        return tensors

    return fail


def in_scheduler(pipe: Any) -> Callable[..., Any]:
    step, calls = pipe.scheduler.step, []

    def fail(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            del pipe.scheduler.step
            raise OnPurpose
        return step(*args, **kwargs)

    pipe.scheduler.step = fail
    return ignore


def in_denoiser(pipe: Any) -> Callable[..., Any]:
    model = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    layer = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))

    def fail(*_: Any) -> None:
        handle.remove()
        raise OnPurpose

    handle: Any = None

    def arm(pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        nonlocal handle
        if index == 1:
            handle = layer.register_forward_pre_hook(fail)
        return tensors

    return arm


def ignore(pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    return tensors


@pytest.mark.parametrize("where", [in_callback, in_scheduler, in_denoiser])
@pytest.mark.parametrize("build", [unet, ltx, flux, wan])
def test_failed_run(build: Build, where: Callable[[Any], Any]) -> None:
    """An exception after the cut: hooks are gone, and the guidance scale is as it was."""
    pipe, call = build()
    plain = call()
    before = traces(pipe)
    try:
        call(**bind(pipe, CFGCutoff(cutoff_step_index=0), where(pipe)))
    except OnPurpose:
        pass
    else:
        pytest.fail("nothing was raised")
    assert traces(pipe) == before
    assert np.array_equal(call(), plain)


@pytest.mark.parametrize("build", [unet, ltx, flux, wan])
def test_failed_run_whose_traceback_is_kept(build: Build) -> None:
    """As notebooks keep it: it holds the loop's frame, so that the run's end is not seen. But
    later runs are not its own, and pass; and when it goes, the hooks do."""
    pipe, call = build()
    plain = call()
    before = traces(pipe)
    with pytest.raises(OnPurpose) as kept:
        call(**bind(pipe, CFGCutoff(cutoff_step_index=0), in_scheduler(pipe)))
    assert np.array_equal(call(), plain)
    del kept
    assert traces(pipe) == before
    assert np.array_equal(call(), plain)
