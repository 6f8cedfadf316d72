"""What is left of a cut when its run fails: nothing, sooner or later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_composes import traces
from test_composes_caches import CACHES
from test_composes_pipelines import STEPS, Build, flux, ltx, unet, wan

from unicb import CFGCutoff, bind


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
    a later run's first call of a hook tells, and takes the hooks away."""
    pipe, call = build()
    plain = call()
    before = traces(pipe)
    with pytest.raises(OnPurpose) as kept:
        call(**bind(pipe, CFGCutoff(cutoff_step_index=0), in_scheduler(pipe)))
    assert np.array_equal(call(), plain)
    assert traces(pipe) == before
    del kept
    assert traces(pipe) == before
    assert np.array_equal(call(), plain)


def test_later_run_keeps_its_guidance_scale() -> None:
    """The traceback of a failed run may go at any time, in the middle of a later one too."""
    pipe, call = wan()
    with pytest.raises(OnPurpose) as kept:
        call(**bind(pipe, CFGCutoff(cutoff_step_index=0), in_scheduler(pipe)))
    seen: list[float] = []

    def step_end(pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        nonlocal kept
        if index == 1:
            del kept
        seen.append(pipe._guidance_scale)
        return tensors

    call(guidance_scale=7.0, callback_on_step_end=step_end)
    assert seen == [7.0] * STEPS


@pytest.mark.parametrize("where", [in_scheduler, in_denoiser])
@pytest.mark.parametrize("cache", ["FirstBlockCache", "TaylorSeer"])
def test_cache_after_a_failed_run_whose_traceback_is_kept(
    cache: str, where: Callable[[Any], Any]
) -> None:
    """The cache has rows of the cut run, and a later run has twice as many."""
    pipe, call = ltx()
    pipe.transformer.enable_cache(CACHES[cache](pipe))
    plain = call()
    with pytest.raises(OnPurpose) as kept:
        call(**bind(pipe, CFGCutoff(cutoff_step_index=0), where(pipe)))
    assert np.array_equal(call(), plain)
    del kept
