"""Every class of diffusers that inpaints step by step is among those that are tried."""

from __future__ import annotations

import inspect

import diffusers
import known_region as known


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
