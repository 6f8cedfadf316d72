"""Our hooks on modules that torch saves or compiles, or whose call accelerate replaces."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from copied import hooked

from unicb.testing import Case
from unicb_torch.harness import harness

CASE = Case("text2img", steps=1)


def test_saved_whole() -> None:
    pipe = harness.build("text2img")
    plain, before = harness.run(pipe, CASE), harness.traces(pipe)
    calls, remove = hooked(pipe.unet)
    file = io.BytesIO()
    torch.save(pipe.unet, file)
    remove()
    file.seek(0)
    pipe.unet = torch.load(file, weights_only=False)
    assert harness.traces(pipe) == before
    assert np.array_equal(harness.run(pipe, CASE), plain)
    assert not calls


def test_copy_whose_call_was_replaced_without_the_registry() -> None:
    """As accelerate does, above ours. What it replaces is kept under a name of its own."""
    pipe = harness.build("text2img")
    plain = harness.run(pipe, CASE)
    calls, remove = hooked(pipe.unet)
    add_hook_to_module(pipe.unet, ModelHook())
    original, pipe.unet = pipe.unet, copy.deepcopy(pipe.unet)
    assert "_diffusers_hook" not in vars(pipe.unet)
    assert pipe.unet._old_forward.__self__ is pipe.unet
    remove_hook_from_module(pipe.unet)
    assert np.array_equal(harness.run(pipe, CASE), plain)
    assert not calls
    pipe.unet = original
    assert np.array_equal(harness.run(pipe, CASE), plain)
    assert len(calls) == 1
    remove()


@pytest.mark.parametrize("in_place", [True, False])
def test_copy_of_a_compiled_model(in_place: bool) -> None:
    """It is what it is without hooks: compiled, or, where that was done in place, not any more."""
    pipe = harness.build("text2img")
    plain = harness.run(pipe, CASE)
    if in_place:
        pipe.unet.compile(backend="eager")
    else:
        pipe.unet = torch.compile(pipe.unet, backend="eager")
    without = copy.deepcopy(pipe.unet)
    calls, remove = hooked(pipe.unet)
    pipe.unet = copy.deepcopy(pipe.unet)
    remove()
    assert sorted(vars(pipe.unet)) == sorted(vars(without))
    assert np.allclose(harness.run(pipe, CASE), plain, atol=1e-5)
    assert not calls
