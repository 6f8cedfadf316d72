"""Copies of models while hooks of unicb are on them, on either framework."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from unicb.testing import Case, Harness

CASE = Case("text2img", steps=1)


def hooked(harness: Harness, module: Any) -> tuple[list[Any], Callable[[], None]]:
    """Grows with every call of the module; and what takes the hook away."""
    calls: list[Any] = []
    refuses_copies = threading.Lock()

    def around(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with refuses_copies:
            calls.append(module)
        return call(*args, **kwargs)

    return calls, harness.backend.hook(module, around)


def check_whole_pipeline(harness: Harness) -> None:
    """And the hooked model stays hooked."""
    pipe = harness.build("text2img")
    plain, before = harness.run(pipe, CASE), harness.traces(pipe)
    calls, remove = hooked(harness, pipe.unet)
    copied = copy.deepcopy(pipe)
    assert harness.traces(copied) == before
    assert np.array_equal(harness.run(copied, CASE), plain)
    assert not calls
    assert np.array_equal(harness.run(pipe, CASE), plain)
    assert len(calls) == 1
    remove()
    assert harness.traces(pipe) == before
    # A copy that is hooked, and a copy of that one.
    calls, remove = hooked(harness, copied.unet)
    again = copy.deepcopy(copied)
    assert np.array_equal(harness.run(again, CASE), plain)
    assert not calls
    remove()
    assert harness.traces(again) == harness.traces(copied) == before


def check_parts(harness: Harness, parts: Callable[[Any], list[Any]], kept: Any) -> None:
    """Models whose parts are hooked, as for an immediate cancel; ``kept``: an attribute that the
    framework's registry may refer to them by."""
    pipe = harness.build("rescale")  # whose UNet has several blocks
    plain = harness.run(pipe, CASE)
    every = [hooked(harness, part) for part in parts(pipe.unet)]
    assert len(every) > 1
    kept(pipe.unet)
    copied = copy.deepcopy(pipe.unet)
    for part in (*parts(copied), copied):
        found = {"forward", "construct", "__reduce_ex__"} & {*vars(part)}
        assert not found
    for _, remove in every:
        remove()
    pipe.unet = copied
    assert np.array_equal(harness.run(pipe, CASE), plain)
    assert not [calls for calls, _ in every if calls]


def check_others(harness: Harness, other: Callable[[Any], None], first: bool) -> None:
    """Hooks of others in the registry are kept as they would have been without ours, be they there
    ``first`` or put on later."""

    def copy_of(ours: bool) -> tuple[Any, list[Any]]:
        pipe = harness.build("text2img")
        calls: list[Any] = []
        if first:
            other(pipe.unet)
        if ours:
            calls, remove = hooked(harness, pipe.unet)
        if not first:
            other(pipe.unet)
        pipe.unet = copy.deepcopy(original := pipe.unet)
        if ours:
            assert original._diffusers_hook.get_hook("unicb") is not None
            remove()
        return pipe, calls

    (without, _), (pipe, calls) = copy_of(False), copy_of(True)
    assert sorted(vars(pipe.unet)) == sorted(vars(without.unet))
    registries = [one.unet._diffusers_hook for one in (without, pipe)]
    for one in registries:
        assert one._hook_order == ["other"] == [*one.hooks]
        assert one._module_ref in (without.unet, pipe.unet)
        assert [one.hooks["other"].fn_ref] == one._fn_refs
    assert np.array_equal(harness.run(pipe, CASE), harness.run(without, CASE))
    plain = harness.run(harness.build("text2img"), CASE)
    for one, model in zip(registries, (without.unet, pipe.unet), strict=True):
        one.remove_hook("other")
        call = vars(model).get("forward", vars(model).get("construct"))
        assert call.__self__ is model
    assert np.array_equal(harness.run(pipe, CASE), plain)
    assert not calls


def check_threads(harness: Harness) -> None:
    """While another thread puts hooks on, and takes them away, and calls the original."""
    pipe = harness.build("text2img")
    plain, before = harness.run(pipe, CASE), harness.traces(pipe)
    wrong: list[Any] = []
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            calls, remove = hooked(harness, pipe.unet)
            found = harness.run(pipe, CASE)
            remove()
            wrong.extend([] if len(calls) == 1 and np.array_equal(found, plain) else [found])

    _, remove = hooked(harness, pipe.unet)  # so that no attribute comes or goes meanwhile
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
