"""CFGCutoff beside caches of other libraries, by what these leave on the model, and beside calls
of a denoiser that somebody has replaced."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock

import accelerate
import numpy as np
import pytest
import torch
from diffusers import hooks
from test_composes import Call, call_of, check_cut, traces
from test_composes_pipelines import Build, flux, ltx, wan

from unicb import (
    CFGCutoff,
    GuidanceInterval,
    GuidanceSchedule,
    Interrupt,
    Preview,
    UnsupportedPipelineError,
    bind,
)
from unicb.guidance._replaced import replaced_by
from unicb_torch import backend
from unicb_torch.harness import harness

CUT = 3


def stable_diffusion() -> tuple[Any, Call]:
    pipe = harness.build("text2img")
    return pipe, call_of(pipe, "text2img", num_inference_steps=8)


BUILDS: tuple[Build, ...] = (stable_diffusion, ltx, flux, wan)


def denoiser(pipe: Any) -> Any:
    return getattr(pipe, "unet", None) or pipe.transformer


def code_in(package: str, function: Any) -> Any:
    """The function as if it stood in a module of that package."""
    names = {**function.__globals__, "__name__": f"{package}.extension"}
    moved = type(function)(function.__code__, names, function.__name__, None, function.__closure__)
    moved.__qualname__, moved.__module__ = function.__qualname__, f"{package}.extension"
    return moved


def cache_dit(pipe: Any) -> Callable[[], None]:
    """cache-dit 1.5.3, caching/cache_adapters/cache_adapter.py: create_context, mock_transformer
    and maybe_release_hooks."""
    model = denoiser(pipe)
    kind, original_call, original_forward = type(pipe), type(pipe).__call__, model.forward
    manager = object()
    pipe._context_manager = manager

    @functools.wraps(original_call)
    def new_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with ExitStack():
            return original_call(self, *args, **kwargs)

    kind.__call__, kind._original_call, kind._is_cached = new_call, original_call, True

    def new_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(self, "of_unified_blocks", (), create=True))
            return original_forward(*args, **kwargs)

    made = functools.partial(code_in("cache_dit", new_forward), model)
    model._context_manager, model._context_names = manager, ["blocks"]
    model.forward = functools.update_wrapper(made, new_forward)
    model._original_forward, model._is_cached = original_forward, True

    def disable() -> None:
        model.forward = original_forward.__get__(model)
        for name in ("_original_forward", "_is_cached", "_context_manager", "_context_names"):
            delattr(model, name)
        kind.__call__ = original_call
        del kind._original_call, kind._is_cached, pipe._context_manager

    return disable


def deep_cache(pipe: Any) -> Callable[[], None]:
    """DeepCache 0.1.1, extension/deepcache.py: wrap_unet_forward and unwrap_modules."""
    model, functions = denoiser(pipe), {"unet_forward": denoiser(pipe).forward}

    def wrapped_forward(*args: Any, **kwargs: Any) -> Any:
        return functions["unet_forward"](*args, **kwargs)

    model.forward = code_in("DeepCache", wrapped_forward)

    def disable() -> None:
        model.forward = functions["unet_forward"]

    return disable


LIBRARIES = {"cache-dit": cache_dit, "DeepCache": deep_cache}


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("library", LIBRARIES)
def test_caches_of_libraries_are_refused(library: str, build: Build) -> None:
    pipe, call = build()
    plain = call()
    disable = LIBRARIES[library](pipe)
    try:
        before = traces(pipe)
        schedule = GuidanceSchedule([(0.0, 5.0), (0.5, 1.0)])
        for callback in (CFGCutoff(0.5), GuidanceInterval(0.2, 0.8), schedule):
            with pytest.raises(UnsupportedPipelineError, match=f"while {library} is enabled"):
                bind(pipe, callback)
        assert traces(pipe) == before
        frames: list[Any] = []
        binding = bind(pipe, Interrupt(4), *_previews(pipe, frames))
        assert call(**binding).shape == plain.shape
        assert binding.state == "interrupted"
        assert np.array_equal(call(), plain)
        assert traces(pipe) == before
    finally:
        disable()
    check_cut(pipe, call, index=CUT)


def _previews(pipe: Any, frames: list[Any]) -> Iterator[Preview]:
    if hasattr(pipe, "unet"):
        yield Preview(frames.append)


@pytest.mark.parametrize("build", [ltx, wan])
@pytest.mark.parametrize("library", LIBRARIES)
def test_caches_that_are_enabled_between_runs(library: str, build: Build) -> None:
    pipe, call = build()
    plain = call()
    binding = bind(pipe, CFGCutoff(cutoff_step_index=CUT))
    expected = call(**binding)
    disable = LIBRARIES[library](pipe)
    try:
        with pytest.raises(UnsupportedPipelineError, match=f"while {library} is enabled"):
            call(**binding)
        assert np.array_equal(call(), plain)
    finally:
        disable()
    assert np.array_equal(call(**binding), expected)


@pytest.mark.parametrize("library", LIBRARIES)
def test_below_hooks_of_others(library: str) -> None:
    """Of diffusers' registry, and of unicb in it."""
    pipe, _ = stable_diffusion()
    disable = LIBRARIES[library](pipe)
    try:
        remove = backend.hook(pipe.unet, lambda call, args, kwargs: call(*args, **kwargs))
        with pytest.raises(UnsupportedPipelineError, match=library):
            bind(pipe, CFGCutoff(0.5))
        remove()
        accelerate.hooks.add_hook_to_module(pipe.unet, accelerate.hooks.ModelHook())
        with pytest.raises(UnsupportedPipelineError, match=library):
            bind(pipe, CFGCutoff(0.5))
        accelerate.hooks.remove_hook_from_module(pipe.unet)
    finally:
        disable()


# --------------------------------------------------------------------------- what is not known


def test_frameworks_are_known() -> None:
    """What they put in a call's place is not verified: it costs nothing."""
    pipe, _ = stable_diffusion()
    unet = pipe.unet
    assert replaced_by(unet) is None
    remove = backend.hook(unet, lambda call, args, kwargs: call(*args, **kwargs))
    assert replaced_by(unet) is None
    remove()
    accelerate.hooks.add_hook_to_module(unet, accelerate.hooks.ModelHook())
    assert replaced_by(unet) is None
    accelerate.hooks.remove_hook_from_module(unet)
    hooks.apply_layerwise_casting(unet, torch.float16, torch.float32)
    assert replaced_by(unet) is None
    assert replaced_by(torch.compile(unet)) is None
    unet.forward = torch.compile(unet.forward)
    assert replaced_by(unet) is None
    transformer = ltx()[0].transformer
    transformer.enable_cache(hooks.FirstBlockCacheConfig(threshold=0.1))
    assert replaced_by(transformer) is None


def replace(pipe: Any, call: Callable[..., Any]) -> None:
    """As users do it, and libraries."""
    model = denoiser(pipe)
    model.forward = functools.partial(call, type(model).forward.__get__(model), [])


def notes(forward: Any, kept: list[Any], *args: Any, **kwargs: Any) -> Any:
    kept.append(1)
    return forward(*args, **kwargs)


def cache_of_halves(forward: Any, kept: list[Any], *args: Any, **kwargs: Any) -> Any:
    """As cache-dit does it: whose half it is is known by counting, and each has a cache, from
    which everything but the first is answered."""
    half = len(kept) % 2
    kept.append(forward(*args, **kwargs) if len(kept) < 2 else kept[half])
    return kept[-1]


def cache_of_rows(forward: Any, kept: list[Any], *args: Any, **kwargs: Any) -> Any:
    """What was added to the input is kept, and added to the next."""
    sample = args[0] if args else kwargs["hidden_states"]
    if kept:
        return (sample + kept[0],)
    out = forward(*args, **kwargs)
    kept.append(out[0] - sample)
    return out


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_a_call_that_was_replaced_and_holds(build: Build) -> None:
    pipe, call = build()
    expected = call(**bind(pipe, CFGCutoff(cutoff_step_index=CUT)))
    replace(pipe, notes)
    assert replaced_by(denoiser(pipe)) == f"{__name__}.notes"
    before = traces(pipe)
    assert np.array_equal(call(**bind(pipe, CFGCutoff(cutoff_step_index=CUT))), expected)
    assert traces(pipe) == before


@pytest.mark.parametrize(
    ("build", "library"),
    [
        *((stable_diffusion, cache_of_rows), (ltx, cache_of_rows)),
        *((flux, cache_of_halves), (wan, cache_of_halves)),
    ],
)
def test_a_call_that_was_replaced_and_does_not(build: Build, library: Any) -> None:
    pipe, call = build()
    plain = call()
    replace(pipe, library)
    before = traces(pipe)
    with pytest.raises(UnsupportedPipelineError, match=r"its (unet|transformer).*(rows|twice)"):
        call(**bind(pipe, CFGCutoff(cutoff_step_index=CUT)))
    assert traces(pipe) == before
    del denoiser(pipe).forward
    assert np.array_equal(call(), plain)
