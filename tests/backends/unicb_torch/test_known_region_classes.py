"""Every class of diffusers that inpaints step by step is among those that are tried."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import known_region as known
import torch
import ways

from unicb import Callback, Step, bind
from zoo.entry import Request


def test_every_class_is_tried() -> None:
    assert known.with_known_region() == {title for _, title in known.PAINTING}


def test_every_loop_that_needs_it_is_known() -> None:
    """Others that put a picture back step by flow with Euler's method, which two latents tell."""
    found = set()
    for name in dir(diffusers):
        if "Inpaint" not in name or not name.endswith("Pipeline"):
            continue
        try:
            source = inspect.getsource(getattr(diffusers, name).__call__)
        except (ImportError, AttributeError, TypeError):
            continue
        takes_callbacks = "callback_on_step_end_tensor_inputs" in source
        if takes_callbacks and "init_latents_proper" in source and "scale_noise(" not in source:
            found.add(name)
    # Kandinsky's mask is the other way round; its own schedulers keep nothing.
    assert found - {"KandinskyV22InpaintPipeline"} == known.with_known_region()


def test_picture_that_is_put_back_clean_after_each_step() -> None:
    """DeepFloyd IF puts the picture back without noise, so that x0 has it, too, whatever the
    model says there."""
    title = "IFInpaintingPipeline"
    fx, pipe = ways.framework("torch"), ways.pipeline("torch", title)
    given = ways.all_entries("torch")[title].arguments(fx, pipe, Request())
    own, seen = pipe.scheduler, list[tuple[Any, Any]]()

    class Look(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            assert step.denoised_kind == "exact"
            seen.append((step.denoised(), step["latents"].clone()))

    pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
        own.config, variance_type="learned_range"
    )
    try:
        bind(pipe, Look())(**given)
    finally:
        pipe.scheduler = own
    mask, picture = given["mask_image"], given["image"]
    assert len(seen) == 4
    for denoised, latents in seen:
        assert torch.equal(denoised * (1 - mask), picture * (1 - mask))
        assert torch.equal(latents * (1 - mask), picture * (1 - mask))
    assert not torch.equal(seen[0][0] * mask, seen[0][1] * mask)
