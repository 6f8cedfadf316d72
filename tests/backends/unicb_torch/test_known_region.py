"""Inpainting with diffusers: previews have the given picture where it is given."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import known_region as known
import pytest
from ways import framework

UNIPC = "UniPCMultistepScheduler"
INPAINT = known.PAINTING[0]


@pytest.mark.parametrize(("family", "title"), known.PAINTING)
def test_of_every_class(family: str, title: str) -> None:
    found = known.run(framework("torch"), family, title, UNIPC)
    known.check_known(found.frames)
    known.check_known(found.decoded)
    known.check_guessed(found)


@pytest.mark.parametrize(
    ("scheduler", "config"),
    [
        ("DPMSolverMultistepScheduler", {}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 3}),
        ("DEISMultistepScheduler", {}),
        ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}),
        ("EulerDiscreteScheduler", {}),
    ],
)
def test_of_every_kind_of_scheduler(scheduler: str, config: dict[str, Any]) -> None:
    found = known.run(framework("torch"), *INPAINT, scheduler, **config)
    known.check_known(found.frames)
    known.check_known(found.decoded)


@pytest.mark.parametrize("kind", ["StableDiffusion", "StableDiffusionXL"])
def test_a_model_of_9_channels_paints_all(kind: str) -> None:
    title = f"{kind}InpaintPipeline (9 channels)"
    known.check_all_guessed(known.run(framework("torch"), "stable_diffusion", title, UNIPC))


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
