"""Perturbed-attention guidance: whose processors are on the model when a run is over?"""

from __future__ import annotations

from typing import Any

import pytest
import ways

from unicb import CFGCutoff, bind
from zoo.entry import Request

TITLE = "StableDiffusionPAGPipeline"


@pytest.mark.parametrize("end", ["finished", "interrupted", "failed"])
def test_processors_are_put_back(end: str) -> None:
    """After an interrupt by the pipeline's own flag, the run's end is noticed only when the
    pipeline has put its own processors back; after a failure, it never does, and finds the ones
    that it had set.
    """
    fx = ways.framework("torch")
    fx.seed()
    entry = ways.all_entries("torch")[TITLE]
    pipe = entry.build(fx)
    plain = dict(pipe.unet.attn_processors)
    seen: list[dict[str, Any]] = []

    def callback(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
        seen.append(dict(pipe.unet.attn_processors))
        if index == 2 and end == "interrupted":
            pipe._interrupt = True
        if index == 2 and end == "failed":
            raise KeyboardInterrupt

    callbacks = bind(pipe, CFGCutoff(cutoff_step_index=0), callback, tensor_inputs=["latents"])
    try:
        pipe(**entry.arguments(fx, pipe, Request()), **callbacks)
    except KeyboardInterrupt:
        assert end == "failed"
    after = dict(pipe.unet.attn_processors)
    assert seen[0] != plain, "nothing was perturbed"
    assert seen[1] != seen[0], "the processors were not exchanged"
    assert after == (seen[0] if end == "failed" else plain)
