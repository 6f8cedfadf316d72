"""PromptSchedule and PromptWeights on diffusers' pipelines with text encoders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_composes_prompts import with_text

from unicb import CFGCutoff, UnsupportedPipelineError, bind
from unicb.callbacks.prompts import PromptSchedule, PromptWeights
from unicb.testing.tiny import PIXELS
from unicb_torch.harness import harness

sys.path.insert(0, str(Path(__file__).parents[1]))

from prompted import STEPS, check_switch, told

ROOT = Path(__file__).parents[3]
ONE, OTHER = "a red circle", "a green square"
TWO, OTHERS = [ONE, OTHER], ["a blue star", "a white ring"]


def run(pipe: Any, prompt: Any, *callbacks: Any, guidance: float = 5.0, **keywords: Any) -> Any:
    return pipe(
        prompt,
        height=PIXELS,
        width=PIXELS,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
        **keywords,
        **(bind(pipe, *callbacks) if callbacks else {}),
    )[0]


@pytest.mark.parametrize("guidance", [5.0, 1.0])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize(("prompts", "others"), [(ONE, OTHER), (TWO, OTHERS)])
@pytest.mark.parametrize("kind", ["text2img", "xl-text2img"])
def test_the_denoiser_is_told_the_other_prompt(
    kind: str, prompts: Any, others: Any, images: int, guidance: float
) -> None:
    """Pooled embeddings included; the negative ones stay."""
    pipe = with_text(kind)
    keywords = {"guidance": guidance, "num_images_per_prompt": images}
    before, _ = told(harness, run, pipe, prompts, **keywords)
    after, _ = told(harness, run, pipe, others, **keywords)
    schedule = PromptSchedule([(0.0, prompts), (0.5, others)])
    found, _ = told(harness, run, pipe, prompts, schedule, **keywords)
    check_switch(before, after, found, STEPS // 2)


@pytest.mark.parametrize("kind", ["text2img", "xl-text2img"])
def test_negative_prompts(kind: str) -> None:
    pipe = with_text(kind)
    before, _ = told(harness, run, pipe, ONE, negative_prompt="a star")
    after, _ = told(harness, run, pipe, OTHER, negative_prompt="a ring")
    schedule = PromptSchedule([(0.5, OTHER)], negative=[(0.0, "a star"), (0.5, "a ring")])
    found, _ = told(harness, run, pipe, ONE, schedule, negative_prompt="a star")
    check_switch(before, after, found, STEPS // 2)


@pytest.mark.parametrize("kind", ["text2img", "xl-text2img"])
def test_weights(kind: str) -> None:
    pipe = with_text(kind)
    plain = [told(harness, run, pipe, text)[0][0] for text in (ONE, OTHER)]
    blend = PromptWeights({ONE: 1, OTHER: lambda progress: 3.0 if progress > 0.5 else 1.0})
    found, _ = told(harness, run, pipe, ONE, blend)
    for one, other, *mixed in zip(*plain, found[1], found[-1], strict=True):
        np.testing.assert_allclose(mixed[0], 0.5 * one + 0.5 * other, rtol=0, atol=1e-5)
        np.testing.assert_allclose(mixed[1], 0.25 * one + 0.75 * other, rtol=0, atol=1e-5)


def test_the_same_prompt_changes_no_bit_and_no_random_number() -> None:
    pipe = with_text("xl-text2img")
    torch.manual_seed(3)
    plain = run(pipe, ONE), torch.rand(1)
    torch.manual_seed(3)
    same = run(pipe, ONE, PromptSchedule([(0.0, ONE), (0.5, ONE)])), torch.rand(1)
    assert torch.equal(plain[1], same[1])
    torch.testing.assert_close(plain[0], same[0], rtol=0, atol=1e-5)


def test_half_precision_stays() -> None:
    pipe = with_text("text2img").to(torch.bfloat16)
    found, latents = told(harness, run, pipe, ONE, PromptSchedule([(0.5, OTHER)], interpolate=True))
    assert latents.dtype == torch.bfloat16
    assert not np.array_equal(found[0][0], found[-1][0])


def test_it_goes_with_a_cut_of_guidance() -> None:
    pipe = with_text("xl-text2img")
    after, _ = told(harness, run, pipe, OTHER)
    callbacks = (CFGCutoff(0.3), PromptSchedule([(0.5, OTHER)]))
    found, _ = told(harness, run, pipe, ONE, *callbacks)
    assert [len(tensors[0]) for tensors in found] == [2, 2, 1, 1, 1, 1]
    for tensor, expected in zip(found[-1], after[-1], strict=True):
        np.testing.assert_allclose(tensor[0], expected[1], rtol=0, atol=1e-5)


def test_embeddings_that_were_handed_in() -> None:
    """What the call's prompt was cannot be told, and need not be."""
    pipe = with_text("text2img")
    embeds = pipe.encode_prompt(ONE, "cpu", 1, True)
    after, _ = told(harness, run, pipe, OTHER)
    keywords = {"prompt_embeds": embeds[0], "negative_prompt_embeds": embeds[1]}
    schedule = PromptSchedule([(0.5, OTHER)])
    found, _ = told(harness, run, pipe, None, schedule, **keywords)
    np.testing.assert_allclose(found[-1][0], after[-1][0], rtol=0, atol=1e-5)


def test_flux_keeps_its_pooled_embeddings() -> None:
    from diffusers import FluxPipeline, StableDiffusionInstructPix2PixPipeline

    flux = FluxPipeline(*[None] * 7)
    with pytest.raises(UnsupportedPipelineError, match="without a text encoder"):
        bind(flux, PromptSchedule([(0.5, ONE)]))
    flux.text_encoder = object()
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
    script = ROOT / "examples" / "prompt_schedule.py"
    # The sources must not hide the installed package.
    env = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT / "examples")}
    done = subprocess.run(
        [sys.executable, str(script), "--at", "0.3", "1.0", "--out", str(sheet)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(sheet).size[0] > 400
    rows = [line.split() for line in done.stdout.splitlines() if line[:1].isdigit()]
    found = {float(at): (float(first), float(then)) for at, first, then in rows}
    assert found[1.0][0] == 0.0  # there is no step left that it would be for
    assert found[0.3][0] > 5.0 < found[0.3][1]
