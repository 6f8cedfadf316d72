"""Our hooks beside those of others in the framework's own registry."""

from __future__ import annotations

import copy
import io
from typing import Any

import copied
import numpy as np
import pytest
import torch
from accelerate.hooks import ModelHook as AccelerateHook
from accelerate.hooks import add_hook_to_module, remove_hook_from_module
from diffusers.hooks import HookRegistry, ModelHook

from unicb.testing import Case
from unicb_torch import backend
from unicb_torch.harness import harness

CASE = Case("text2img", steps=1)


class Other(ModelHook):
    """Somebody else's hook that replaces the call, as caches and layer skipping do."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def new_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.fn_ref.original_forward(*args, **kwargs)


def passing(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return call(*args, **kwargs)


def test_hook_of_others_above_ours_stays() -> None:
    """The registry itself would lose it when ours, below it, is removed."""
    pipe = harness.build("text2img")
    plain = harness.run(pipe, CASE)
    remove = backend.hook(pipe.unet, passing)
    other = Other()
    registry = HookRegistry.check_if_exists_or_initialize(pipe.unet)
    registry.register_hook(other, "other")
    remove()
    assert np.array_equal(harness.run(pipe, CASE), plain)
    assert other.calls == 1
    registry.remove_hook("other")
    assert np.array_equal(harness.run(pipe, CASE), plain)
    assert other.calls == 1


def test_hook_of_others_below_ours_stays() -> None:
    pipe = harness.build("text2img")
    plain = harness.run(pipe, CASE)
    other = Other()
    HookRegistry.check_if_exists_or_initialize(pipe.unet).register_hook(other, "other")
    before = harness.traces(pipe)
    backend.hook(pipe.unet, passing)()
    assert harness.traces(pipe) == before
    assert np.array_equal(harness.run(pipe, CASE), plain)
    assert other.calls == 1


def test_copy_of_the_whole_pipeline() -> None:
    copied.check_whole_pipeline(harness)


def test_copy_of_a_model_whose_parts_are_hooked() -> None:
    def keep(unet: Any) -> None:
        registry = HookRegistry.check_if_exists_or_initialize(unet)
        assert len(registry._get_child_registries()) > 1  # which it keeps

    copied.check_parts(harness, lambda unet: [*unet.down_blocks, unet.mid_block], keep)


@pytest.mark.parametrize("first", [True, False])
def test_copy_with_hooks_of_others(first: bool) -> None:
    def put_other(unet: Any) -> None:
        HookRegistry.check_if_exists_or_initialize(unet).register_hook(Other(), "other")

    copied.check_others(harness, put_other, first)


def test_copy_while_others_call() -> None:
    copied.check_threads(harness)


def test_saved_whole() -> None:
    pipe = harness.build("text2img")
    plain, before = harness.run(pipe, CASE), harness.traces(pipe)
    calls, remove = copied.hooked(harness, pipe.unet)
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
    calls, remove = copied.hooked(harness, pipe.unet)
    add_hook_to_module(pipe.unet, AccelerateHook())
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
    calls, remove = copied.hooked(harness, pipe.unet)
    pipe.unet = copy.deepcopy(pipe.unet)
    remove()
    assert sorted(vars(pipe.unet)) == sorted(vars(without))
    assert np.allclose(harness.run(pipe, CASE), plain, atol=1e-5)
    assert not calls
