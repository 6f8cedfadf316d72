"""An IP-Adapter that is loaded on a modular pipeline has its scale set as on a classic one."""

from __future__ import annotations

from collections.abc import Callable as Function
from typing import Any

import pytest
import torch

from unicb import Callback, IPAdapterCutoff, IPAdapterScale, Step, UnsupportedPipelineError, bind
from zoo.entry import Request
from zoo.families.stable_diffusion import IMAGE, _ip_adapter
from zoo.framework import Torch
from zoo.modular.entries import modular_entries

FX = Torch()
SCALE = 0.6


class ByHand(Callback):
    """Sets the scale by the pipeline's own method at the end of a step."""

    def __init__(self, at: int, scale: float) -> None:
        self._at, self._scale = at, scale

    def on_step_end(self, step: Step) -> None:
        if step.index == self._at:
            step.pipeline.set_ip_adapter_scale(self._scale)


def built(adapted: bool) -> tuple[Any, Function[..., torch.Tensor]]:
    """A pipeline, and what calls it with callbacks and returns its latents."""
    entry = next(e for e in modular_entries() if e.name == "StableDiffusionXLModularPipeline")
    pipe = entry.build(FX)
    if adapted:
        pipe.unet._load_ip_adapter_weights([_ip_adapter(FX, pipe.unet, 5)])
        pipe.set_ip_adapter_scale(SCALE)

    def call(*callbacks: Any) -> torch.Tensor:
        picture = 20 * FX.normal(1, 1, IMAGE, seed=9)
        pictures = {"ip_adapter_embeds": [picture], "negative_ip_adapter_embeds": [0 * picture]}
        returned = bind(pipe, *callbacks)(**entry.arguments(FX, Request()), **pictures)
        found = returned.get("latents")
        assert isinstance(found, torch.Tensor)
        return found

    return pipe, call


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (IPAdapterCutoff(cutoff_step_index=1), ByHand(1, 0.0)),
        (IPAdapterScale(lambda progress: SCALE if progress < 0.5 else 0.1), ByHand(1, 0.1)),
    ],
    ids=["cutoff", "scale"],
)
def test_scale_is_that_of_the_pipelines_own_method(ours: Callback, theirs: Callback) -> None:
    pipe, call = built(adapted=True)
    plain, expected = call(), call(theirs)
    pipe.set_ip_adapter_scale(SCALE)
    assert torch.equal(call(ours), expected)
    assert (expected - plain).abs().max() > 0.05
    assert torch.equal(call(), plain)


def test_without_one_it_is_refused() -> None:
    pipe, _ = built(adapted=False)
    with pytest.raises(UnsupportedPipelineError, match="no IP-Adapter"):
        bind(pipe, IPAdapterScale(lambda progress: 0.1))
