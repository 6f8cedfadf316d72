"""What spreads a pipeline over ranks in a way that callbacks cannot go along with."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

from unicb import CFGCutoff, GuidanceInterval, GuidanceSchedule, Preview, bind
from unicb.errors import BackendNotFoundError, UnsupportedPipelineError
from unicb_numpy.backend import NumpyBackend
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

#: As examples of xDiT have it: the denoiser's call is replaced by one that splits the batch.
SPLITS = """
def forward(self, sample, timestep, encoder_hidden_states):
    def part(x):
        size = get_classifier_free_guidance_world_size()
        return StrictTensor(np.split(x.data, size)[get_classifier_free_guidance_rank()])
    return plain(part(sample), timestep, part(encoder_hidden_states))
"""
STAGES = """
def forward(self, sample, timestep, encoder_hidden_states):
    assert get_pipeline_parallel_world_size() > 0
    return plain(sample, timestep, encoder_hidden_states)
"""


def replaced(source: str, **sizes: int) -> Any:
    pipeline = ToyPipeline()
    names: dict[str, Any] = {"plain": pipeline.unet.forward, "np": np, "StrictTensor": StrictTensor}
    names.update({name: lambda size=size: size for name, size in sizes.items()})
    exec(source, names)
    pipeline.unet.forward = types.MethodType(names["forward"], pipeline.unet)
    return pipeline


def halves(size: int) -> Any:
    return replaced(
        SPLITS,
        get_classifier_free_guidance_world_size=size,
        get_classifier_free_guidance_rank=0,
    )


@pytest.mark.parametrize("callback", [CFGCutoff(0.4), GuidanceInterval(0.2, 0.6)])
def test_cut_where_each_half_is_another_ranks(callback: Any) -> None:
    with pytest.raises(UnsupportedPipelineError, match="gives each of 2 ranks its part"):
        bind(halves(2), callback)


def test_only_the_cut_is_refused_there() -> None:
    for callbacks in ([Preview([])], [GuidanceSchedule(lambda progress: 3.0)]):
        bind(halves(2), *callbacks)._used = True


def test_cut_where_one_rank_has_both_halves() -> None:
    found = bind(halves(1), CFGCutoff(0.4))("x", 4, output_type="latent")
    assert np.array_equal(found, bind(ToyPipeline(), CFGCutoff(0.4))("x", 4, output_type="latent"))


def test_engine_that_was_not_begun_splits_nothing() -> None:
    pipeline = halves(2)

    def not_begun() -> int:
        raise AssertionError("the group is not initialized")

    names = pipeline.unet.forward.__func__.__globals__
    names["get_classifier_free_guidance_world_size"] = not_begun
    bind(pipeline, CFGCutoff(0.4))._used = True


def test_stages_of_a_pipeline_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumpyBackend, "rank", lambda self: (1, 2))
    with pytest.raises(UnsupportedPipelineError, match="stage of one rank of 2"):
        bind(replaced(STAGES, get_pipeline_parallel_world_size=2), Preview([]))
    bind(replaced(STAGES, get_pipeline_parallel_world_size=1), Preview([]))._used = True


def test_wrapper_around_a_pipeline() -> None:
    class Wrapper:
        def __init__(self, module: Any) -> None:
            self.module = module

        def __getattr__(self, name: str) -> Any:
            return getattr(self.module, name)

    with pytest.raises(UnsupportedPipelineError, match=r"its `module` is a ToyPipeline") as caught:
        bind(Wrapper(ToyPipeline()), Preview([]))
    assert "bind(wrapper.module, ...)" in str(caught.value)
    with pytest.raises(BackendNotFoundError):
        bind(Wrapper(object()), Preview([]))
