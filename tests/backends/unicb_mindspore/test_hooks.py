"""Our hooks beside those of others in the framework's own registry."""

from __future__ import annotations

from typing import Any

import copied
import numpy as np
import pytest
from mindone.diffusers.hooks import HookRegistry, ModelHook

from unicb.testing import Case
from unicb_mindspore import backend
from unicb_mindspore.harness import harness

CASE = Case("text2img", steps=1)


class Other(ModelHook):
    """Somebody else's hook that replaces the call, as caches and layer skipping do."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def new_construct(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.fn_ref.original_construct(*args, **kwargs)


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
        registry.kept = [unet.mid_block._diffusers_hook]

    copied.check_parts(harness, lambda unet: [*unet.down_blocks, unet.mid_block], keep)


@pytest.mark.parametrize("first", [True, False])
def test_copy_with_hooks_of_others(first: bool) -> None:
    def put_other(unet: Any) -> None:
        HookRegistry.check_if_exists_or_initialize(unet).register_hook(Other(), "other")

    copied.check_others(harness, put_other, first)


def test_copy_while_others_call() -> None:
    copied.check_threads(harness)
