"""CFGCutoff beside mindone's own caches, whose hooks are in mindone's registry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import ways
from mindone.diffusers.hooks import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    PyramidAttentionBroadcastConfig,
)
from mindspore import mint

from unicb import Callback, CFGCutoff, Step, UnsupportedPipelineError, bind
from unicb_mindspore import backend
from zoo.entry import CASES

TITLE = "CogVideoXPipeline"
CUT = 1
#: By name; each answers for layers before the cut and after it.
CACHES = {
    "FirstBlockCache": lambda pipe: FirstBlockCacheConfig(threshold=10.0),
    "PyramidAttentionBroadcast": lambda pipe: PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 1001),
        current_timestep_callback=lambda: pipe.current_timestep,
    ),
}


class Reference(Callback):
    """Both halves computed to the end; from the cut on, the conditional one used for both."""

    def on_step_end(self, step: Step) -> None:
        if step.index == CUT:
            backend.reset_caches(step.pipeline.transformer)
            step.run.on_finish(backend.hook(step.pipeline.transformer, self._doubled))

    def _doubled(self, call: Any, args: Any, kwargs: Any) -> Any:
        out = call(*args, **kwargs)
        halves = out[0].chunk(2)
        return (mint.cat([halves[1]] * 2), *out[1:])


class Last(Callback):
    tensors = ("latents",)

    def on_step_end(self, step: Step) -> None:
        self.latents = step.ops.to_numpy(step["latents"])


def latents(pipe: Any, *callbacks: Any) -> Any:
    entry, last = ways.all_entries("mindspore")[TITLE], Last()
    case = next(case for case in CASES if case not in entry.impossible)
    # mindone itself leaves what a cache has to the next run.
    pipe.transformer._reset_stateful_cache()
    arguments = entry.arguments(ways.framework("mindspore"), pipe, CASES[case])
    pipe(**arguments, **bind(pipe, *callbacks, last))
    return last.latents


def layers_called(pipe: Any, *callbacks: Any) -> list[int]:
    """Rows of each call of a linear layer in the blocks of the denoiser."""
    rows: list[int] = []

    def around(call: Any, args: Any, kwargs: Any) -> Any:
        rows.append(len(args[0]))
        return call(*args, **kwargs)

    every = pipe.transformer.transformer_blocks.cells_and_names()
    layers = [cell for _, cell in every if isinstance(cell, mint.nn.Linear)]
    removers = [backend.hook(layer, around) for layer in layers]
    latents(pipe, *callbacks)
    for remove in removers:
        remove()
    return rows


@pytest.fixture
def pipe() -> Any:
    """Of two blocks, of which a cache may leave one out."""
    pipe = ways.pipeline("mindspore", TITLE)
    one = pipe.transformer
    pipe.transformer = type(one).from_config({**one.config, "num_layers": 2}).set_train(False)
    yield pipe
    pipe.transformer = one


@pytest.mark.parametrize("cache", CACHES)
def test_cache(pipe: Any, cache: str) -> None:
    cut = CFGCutoff(cutoff_step_index=CUT)
    without, plain = layers_called(pipe, cut), latents(pipe, Reference())
    pipe.transformer.enable_cache(CACHES[cache](pipe))
    rows = layers_called(pipe, cut)
    for count in set(without):
        assert 0 < rows.count(count) < without.count(count)
    expected = latents(pipe, Reference())
    assert np.abs(expected - plain).max() > 1e-3 * plain.std()
    before = id(type(pipe.transformer)), sorted(vars(pipe.transformer))
    found = latents(pipe, cut)
    print(f"difference {np.abs(found - expected).max() / expected.std():.1e}")
    assert np.abs(found - expected).max() < 1e-4 * expected.std()
    assert (id(type(pipe.transformer)), sorted(vars(pipe.transformer))) == before


def test_faster_cache_is_refused(pipe: Any) -> None:
    pipe.transformer.enable_cache(FasterCacheConfig(current_timestep_callback=lambda: 0))
    with pytest.raises(UnsupportedPipelineError, match="FasterCache"):
        bind(pipe, CFGCutoff(0.5))
