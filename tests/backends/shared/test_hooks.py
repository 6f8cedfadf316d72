"""Our hooks beside those of others in the framework's registry, and copies of what is hooked."""

from __future__ import annotations

import copy
import threading
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from copied import hooked
from here import FORWARD, NAME, backend, diffusers, harness

from unicb.testing import Case

CASE = Case("text2img", steps=1)
hooks: Any = import_module(f"{diffusers.__name__}.hooks")
HookRegistry = hooks.HookRegistry


class Other(hooks.ModelHook):
    """Somebody else's hook that replaces the call, as caches and layer skipping do."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def answer(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return getattr(self.fn_ref, f"original_{FORWARD}")(*args, **kwargs)


setattr(Other, f"new_{FORWARD}", Other.answer)


def state(module: Any) -> Any:
    """Its class, and the names of its attributes."""
    return id(type(module)), sorted(vars(module))


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
    """And the hooked model stays hooked."""
    pipe = harness.build("text2img")
    plain, before = harness.run(pipe, CASE), harness.traces(pipe)
    calls, remove = hooked(pipe.unet)
    copied = copy.deepcopy(pipe)
    assert harness.traces(copied) == before
    assert np.array_equal(harness.run(copied, CASE), plain)
    assert not calls
    assert np.array_equal(harness.run(pipe, CASE), plain)
    assert len(calls) == 1
    remove()
    assert harness.traces(pipe) == before
    # A copy that is hooked, and a copy of that one.
    calls, remove = hooked(copied.unet)
    again = copy.deepcopy(copied)
    assert np.array_equal(harness.run(again, CASE), plain)
    assert not calls
    remove()
    assert harness.traces(again) == harness.traces(copied) == before


def test_copy_of_a_model_whose_parts_are_hooked() -> None:
    """As for an immediate cancel."""

    def parts(unet: Any) -> list[Any]:
        return [*unet.down_blocks, unet.mid_block]

    pipe = harness.build("rescale")  # whose UNet has several blocks
    plain = harness.run(pipe, CASE)
    every = [hooked(part) for part in parts(pipe.unet)]
    assert len(every) > 1
    registry = HookRegistry.check_if_exists_or_initialize(pipe.unet)
    if NAME == "torch":
        assert len(registry._get_child_registries()) > 1  # which it keeps
    copied = copy.deepcopy(pipe.unet)
    for part, plain_part in zip(parts(copied), parts(harness.build("rescale").unet), strict=True):
        assert state(part) == state(plain_part)
    assert not {FORWARD, "__reduce_ex__"} & {*vars(copied)}
    for _, remove in every:
        remove()
    pipe.unet = copied
    assert np.array_equal(harness.run(pipe, CASE), plain)
    assert not [calls for calls, _ in every if calls]


@pytest.mark.parametrize("first", [True, False])
def test_copy_with_hooks_of_others(first: bool) -> None:
    """They are kept as they would have been without ours, be they there ``first`` or put on
    later."""

    def put_other(unet: Any) -> None:
        HookRegistry.check_if_exists_or_initialize(unet).register_hook(Other(), "other")

    def copy_of(ours: bool) -> tuple[Any, list[Any]]:
        pipe = harness.build("text2img")
        calls: list[Any] = []
        if first:
            put_other(pipe.unet)
        if ours:
            calls, remove = hooked(pipe.unet)
        if not first:
            put_other(pipe.unet)
        pipe.unet = copy.deepcopy(original := pipe.unet)
        if ours:
            assert state(original) != state(pipe.unet)
            remove()
        return pipe, calls

    (without, _), (pipe, calls) = copy_of(False), copy_of(True)
    assert state(pipe.unet) == state(without.unet)
    registries = [one.unet._diffusers_hook for one in (without, pipe)]
    for one in registries:
        assert one._hook_order == ["other"] == [*one.hooks]
        assert one._module_ref in (without.unet, pipe.unet)
        assert [one.hooks["other"].fn_ref] == one._fn_refs
    assert np.array_equal(harness.run(pipe, CASE), harness.run(without, CASE))
    plain = harness.run(harness.build("text2img"), CASE)
    for one, model in zip(registries, (without.unet, pipe.unet), strict=True):
        one.remove_hook("other")
        call = vars(model)[FORWARD]
        assert call.__self__ is model
    assert np.array_equal(harness.run(pipe, CASE), plain)
    assert not calls


def test_copy_while_others_call() -> None:
    """While another thread puts hooks on, and takes them away, and calls the original."""
    pipe = harness.build("text2img")
    plain, before = harness.run(pipe, CASE), harness.traces(pipe)
    wrong: list[Any] = []
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            calls, remove = hooked(pipe.unet)
            found = harness.run(pipe, CASE)
            remove()
            wrong.extend([] if len(calls) == 1 and np.array_equal(found, plain) else [found])

    _, remove = hooked(pipe.unet)  # so that no attribute comes or goes meanwhile
    thread = threading.Thread(target=work)
    thread.start()
    copies = [copy.deepcopy(pipe.unet) for _ in range(10)]
    done.set()
    thread.join()
    remove()
    assert not wrong
    for pipe.unet in copies:
        assert harness.traces(pipe) == before
        assert np.array_equal(harness.run(pipe, CASE), plain)
