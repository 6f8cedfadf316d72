"""PromptSchedule beside other callbacks, in half precision, and on pipelines that refuse it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import ways
from PIL import Image
from prompted import embeddings_seen, with_text
from scripts import run_script

from unicb import Callback, CFGCutoff, UnsupportedPipelineError, bind
from unicb.callbacks.prompts import PromptSchedule
from zoo.entry import Request

ROOT = Path(__file__).parents[3]
ONE, OTHER = "a red circle", "a green square"


def test_half_precision_stays() -> None:
    pipe = with_text("text2img").to(torch.bfloat16)
    found, latents = embeddings_seen(pipe, ONE, PromptSchedule([(0.5, OTHER)], interpolate=True))
    assert latents.dtype == torch.bfloat16
    assert not np.array_equal(found[0][0], found[-1][0])


def test_it_goes_with_a_cut_of_guidance() -> None:
    pipe = with_text("xl-text2img")
    after, _ = embeddings_seen(pipe, OTHER)
    callbacks = (CFGCutoff(0.3), PromptSchedule([(0.5, OTHER)]))
    found, _ = embeddings_seen(pipe, ONE, *callbacks)
    assert [len(tensors[0]) for tensors in found] == [2, 2, 1, 1, 1, 1]
    for tensor, expected in zip(found[-1], after[-1], strict=True):
        np.testing.assert_allclose(tensor[0], expected[1], rtol=0, atol=1e-5)


def test_embeddings_that_were_handed_in() -> None:
    """What the call's prompt was is unknown, and need not be known."""
    pipe = with_text("text2img")
    embeds = pipe.encode_prompt(ONE, "cpu", 1, True)
    after, _ = embeddings_seen(pipe, OTHER)
    keywords = {"prompt_embeds": embeds[0], "negative_prompt_embeds": embeds[1]}
    schedule = PromptSchedule([(0.5, OTHER)])
    found, _ = embeddings_seen(pipe, None, schedule, **keywords)
    np.testing.assert_allclose(found[-1][0], after[-1][0], rtol=0, atol=1e-5)


def test_flux_keeps_its_pooled_embeddings() -> None:
    from diffusers import FluxPipeline, StableDiffusionInstructPix2PixPipeline

    flux = FluxPipeline(*[None] * 7)
    with pytest.raises(UnsupportedPipelineError, match="without a text encoder"):
        bind(flux, PromptSchedule([(0.5, ONE)]))
    flux.text_encoder = flux.tokenizer = object()
    with pytest.raises(UnsupportedPipelineError, match=r"pooled_prompt_embeds back.*partly=True"):
        bind(flux, PromptSchedule([(0.5, ONE)]))
    bind(flux, PromptSchedule([(0.5, ONE)], partly=True))
    with pytest.raises(UnsupportedPipelineError, match="negative prompt"):
        bind(flux, PromptSchedule([(0.5, ONE)], negative=[(0.5, ONE)], partly=True))
    editing = object.__new__(StableDiffusionInstructPix2PixPipeline)
    with pytest.raises(UnsupportedPipelineError, match="no encode_prompt"):
        bind(editing, PromptSchedule([(0.5, ONE)]))


def test_the_example_draws_a_blue_star(tmp_path: Path) -> None:
    """The first prompt's star, in the second's colour."""
    sheet = tmp_path / "sheet.png"
    example = ROOT / "examples" / "prompt_schedule.py"
    done = run_script(example, "--at", "0.3", "1.0", "--out", str(sheet), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Image.open(sheet).size[0] > 400
    rows = [line.split() for line in done.stdout.splitlines() if line[:1].isdigit()]
    found = {float(at): (float(first), float(then)) for at, first, then in rows}
    assert found[1.0][0] == 0.0  # there is no step left that it would be for
    assert found[0.3][0] > 5.0 < found[0.3][1]


@pytest.mark.parametrize(
    "name",
    ["CogVideoXPipeline", "FluxPipeline", "StableDiffusion3Pipeline", "WanPipeline"],
)
def test_what_encode_prompt_returns(name: str) -> None:
    """The bits of the call's own embeddings; others change the picture; and without a part of them
    they are refused by name, at bind."""
    entry, fx, request = ways.all_entries("torch")[name], ways.framework("torch"), Request(2)
    pipe = ways.pipeline("torch", name)
    made: list[Any] = []

    def latents(*callbacks: Any) -> Any:
        found: list[Any] = []

        class Recorder(Callback):
            tensors = ("latents",)

            def on_step_end(self, step: Any) -> None:
                found.append(step["latents"].clone())

        arguments = entry.arguments(fx, pipe, request)
        own = pipe.encode_prompt

        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            made.append(own(*args, **kwargs))
            return made[-1]

        pipe.encode_prompt = encode_prompt
        try:
            pipe(**arguments, **bind(pipe, *callbacks, Recorder()))
        finally:
            pipe.encode_prompt = own
        return found[-1]

    plain = latents()
    returned = made[0]
    again = PromptSchedule([(0.0, returned), (0.3, tuple(returned))], partly=True)
    assert torch.equal(latents(again), plain)
    others = tuple(part if part is None else part * 0.5 + 0.25 for part in returned)
    assert not torch.equal(latents(PromptSchedule([(0.3, others)], partly=True)), plain)
    if name == "StableDiffusion3Pipeline":
        with pytest.raises(ValueError, match=r"shape \(2, \d, \d\) lack pooled_prompt_embeds"):
            bind(pipe, PromptSchedule([(0.3, returned[0])]))


def test_a_loop_that_asks_embeddings_for_their_dtype_alone_is_refused() -> None:
    """LTX-2's takes them back, and goes on with what its connectors made of them before."""
    from diffusers import LTX2Pipeline

    with pytest.raises(UnsupportedPipelineError, match="takes no prompt embeddings back"):
        bind(object.__new__(LTX2Pipeline), PromptSchedule([(0.5, ONE)], partly=True))
