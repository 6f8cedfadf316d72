"""Our hooks beside those of others in the framework's own registry."""

from __future__ import annotations

from typing import Any

import numpy as np
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
