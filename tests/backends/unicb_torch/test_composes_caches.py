"""CFGCutoff beside diffusers' caches, which answer some calls of layers from earlier ones.

Before the cut, a cache of a batched pipeline holds both halves' rows. unicb has it forget them at
the cut, and at the end of the run; so does the reference. Pipelines that call their denoiser twice
a step name the half in the cache's context, and each half has a cache of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import hooks
from test_composes import Call, Reference, check_cut, normal, rows_seen, traces
from test_composes_pipelines import STEPS, Build, flux, ltx, wan

from unicb import CFGCutoff, UnsupportedPipelineError, bind
from unicb_torch import backend

CUT = 3


def first_block(pipe: Any) -> Any:
    return hooks.FirstBlockCacheConfig(threshold=0.5)


def pyramid(pipe: Any) -> Any:
    return hooks.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        cross_attention_block_skip_range=3,
        spatial_attention_timestep_skip_range=(50, 950),
        cross_attention_timestep_skip_range=(50, 950),
        current_timestep_callback=lambda: pipe._current_timestep,
    )


def taylor(pipe: Any) -> Any:
    return hooks.TaylorSeerCacheConfig(
        cache_interval=2,
        disable_cache_before_step=2,
        taylor_factors_dtype=torch.float32,
        cache_identifiers=[r".*blocks\.\d+\.(attn\d?|ff|ffn)"],
    )


def magnitude(pipe: Any) -> Any:
    return hooks.MagCacheConfig(
        num_inference_steps=STEPS, mag_ratios=[1.01] * STEPS, retention_ratio=0.1
    )


def distilled(pipe: Any) -> Any:
    return hooks.FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(50, 950),
        attention_weight_callback=lambda _: 0.3,
        current_timestep_callback=lambda: pipe._current_timestep,
        is_guidance_distilled=True,
    )


def sea(pipe: Any) -> Any:
    return hooks.SeaCacheConfig(threshold=0.5)


CACHES: dict[str, Callable[[Any], Any]] = {
    "FirstBlockCache": first_block,
    "TaylorSeer": taylor,
    "MagCache": magnitude,
    "SeaCache": sea,
}
#: These keep one state for all calls, whichever half they are for.
SHARED: dict[str, Callable[[Any], Any]] = {
    "PyramidAttentionBroadcast": pyramid,
    "FasterCache, distilled": distilled,
}


class Duplicated(Reference):
    """From the cut on, both halves are given the inputs of the conditional one."""

    def prepare(self, model: Any, args: Any, keywords: dict[str, Any]) -> Any:
        def duplicate(value: Any) -> Any:
            if not (isinstance(value, torch.Tensor) and value.ndim):
                return value
            return torch.cat([value.chunk(2)[1]] * 2)

        if self.active:
            keywords = {name: duplicate(value) for name, value in keywords.items()}
        return args, keywords


class Undisturbed(Reference):
    """From the cut on, unconditional calls leave the caches as they find them."""

    def prepare(self, model: Any, args: Any, keywords: dict[str, Any]) -> Any:
        self.kept = [(state, dict(vars(state))) for state in states(model)]
        return args, keywords

    def change(self, model: Any, args: Any, out: Any) -> Any:
        changed = super().change(model, args, out)
        if self.active and len(self.calls) == 2:
            for state, before in self.kept:
                vars(state).update(before)
        return changed


def states(model: Any) -> list[Any]:
    registries = [m._diffusers_hook for m in model.modules() if hasattr(m, "_diffusers_hook")]
    found = [hook for registry in registries for hook in registry.hooks.values()]
    return [hook.state for hook in found if hasattr(hook, "state")]


def enable(pipe: Any, call: Call, cache: str) -> None:
    """Enable the cache, and assert that it answers for layers both before the cut and after it."""
    without = layers_called(pipe, call)
    pipe.transformer.enable_cache({**CACHES, **SHARED}[cache](pipe))
    layers = layers_called(pipe, call)
    assert sum(layers[: CUT + 1]) < sum(without[: CUT + 1])
    assert sum(layers[CUT + 1 :]) < sum(without[CUT + 1 :])


def layers_called(pipe: Any, call: Call) -> list[int]:
    """How many linear layers are computed in each step of a cut run."""
    counts = [0]

    def step_end(pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        counts.append(0)
        return tensors

    def count(*_: Any) -> None:
        counts[-1] += 1

    layers = [m for m in pipe.transformer.modules() if isinstance(m, torch.nn.Linear)]
    handles = [layer.register_forward_pre_hook(count) for layer in layers]
    call(**bind(pipe, CFGCutoff(cutoff_step_index=CUT), step_end))
    for handle in handles:
        handle.remove()
    return counts[:STEPS]


@pytest.mark.parametrize("cache", ["FirstBlockCache", "TaylorSeer", "MagCache", *SHARED])
def test_batched(cache: str) -> None:
    pipe, call = ltx()
    enable(pipe, call, cache)
    check_cut(pipe, call, index=CUT, at_cut=lambda: backend.reset_caches(pipe.transformer))


@pytest.mark.parametrize("threshold", [0.079, 0.088])  # the whole batch decides otherwise
def test_batched_cache_that_decides_by_its_rows(threshold: float) -> None:
    """FirstBlockCache computes or not by the mean change over all rows that it sees: after the
    cut, the conditional ones."""
    pipe, call = ltx()
    pipe.transformer.enable_cache(hooks.FirstBlockCacheConfig(threshold=threshold))
    reset = pipe.transformer._reset_stateful_cache
    check_cut(pipe, call, index=CUT, at_cut=reset, reference=Duplicated)


@pytest.mark.parametrize(
    ("build", "cache"),
    # SeaCache asks the pipeline for the noise level of each step. Flux does not tell it.
    [
        (build, cache)
        for build in (flux, wan)
        for cache in CACHES
        if (build, cache) != (flux, "SeaCache")
    ],
)
def test_two_calls(build: Build, cache: str) -> None:
    """Nothing to forget: the unconditional half's cache is not asked again."""
    pipe, call = build()
    enable(pipe, call, cache)
    check_cut(pipe, call, index=CUT)


@pytest.mark.parametrize("cache", SHARED)
@pytest.mark.parametrize("build", [flux, wan])
def test_two_calls_of_one_cache(build: Build, cache: str) -> None:
    """Where both halves use one cache, each answers for the other, cut or not. A call that is left
    out leaves no trace in it."""
    pipe, call = build()
    enable(pipe, call, cache)
    check_cut(pipe, call, index=CUT, reference=Undisturbed)


@pytest.mark.parametrize("build", [ltx, flux])
def test_faster_cache_is_refused(build: Build) -> None:
    pipe, call = build()
    plain = call()
    config = hooks.FasterCacheConfig(
        current_timestep_callback=lambda: pipe._current_timestep, tensor_format="BCHW"
    )
    pipe.transformer.enable_cache(config)
    before = traces(pipe)
    with pytest.raises(UnsupportedPipelineError, match=r"FasterCache .*disable_cache"):
        bind(pipe, CFGCutoff(0.5))
    assert traces(pipe) == before
    pipe.transformer.disable_cache()
    assert np.array_equal(call(), plain)
    check_cut(pipe, call, index=CUT)


def test_faster_cache_enabled_after_bind() -> None:
    """The cut itself refuses then, before a wrong picture, and leaves no hook."""
    pipe, call = ltx()
    plain = call()

    def enable(pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == CUT:
            config = hooks.FasterCacheConfig(current_timestep_callback=lambda: 1000)
            pipe.transformer.enable_cache(config)
        return tensors

    binding = bind(pipe, enable, CFGCutoff(cutoff_step_index=CUT))
    with pytest.raises(UnsupportedPipelineError, match="FasterCache"):
        call(**binding)
    assert list(pipe.transformer._diffusers_hook.hooks) == ["faster_cache_denoiser"]
    pipe.transformer.disable_cache()
    assert np.array_equal(call(), plain)


@pytest.mark.parametrize("cache", ["FirstBlockCache", "TaylorSeer", "MagCache", *SHARED])
def test_cache_after_a_failed_run(cache: str) -> None:
    """An error after the cut leaves no rows of the cut run in the cache."""
    pipe, call = ltx()
    enable(pipe, call, cache)
    plain = call()

    def fail(pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == STEPS - 2:
            raise RuntimeError("on purpose")
        return tensors

    with pytest.raises(RuntimeError, match="on purpose"):
        call(**bind(pipe, CFGCutoff(cutoff_step_index=CUT), fail))
    assert np.array_equal(call(), plain)


@pytest.mark.parametrize("cache", ["FirstBlockCache", "TaylorSeer", "MagCache"])
def test_reset_during_a_call(cache: str) -> None:
    """The loop has told the cache which half it is about to compute. A reset forgets earlier
    calls, and not that."""
    pipe, call = wan()
    enable(pipe, call, cache)
    model = pipe.transformer
    inputs = {
        "hidden_states": normal(1, 4, 2, 4, 4),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": normal(1, 4, 8),
    }
    with torch.no_grad(), model.cache_context("cond"):
        first = model(**inputs)[0]
        model(**{**inputs, "timestep": torch.tensor([400])})
        backend.reset_caches(model)
        assert torch.equal(model(**inputs)[0], first)


def test_cache_disabled_during_a_run() -> None:
    """The registry that takes its hook away leaves ours, which came after, in place."""
    pipe, call = ltx()
    pipe.transformer.enable_cache(distilled(pipe))

    def step_end(pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == CUT + 1:
            pipe.transformer.disable_cache()
        return tensors

    with rows_seen(pipe) as rows:
        call(**bind(pipe, CFGCutoff(cutoff_step_index=CUT), step_end))
    assert rows == [4] * (CUT + 1) + [2] * (STEPS - CUT - 1)
    check_cut(pipe, call, index=CUT)
