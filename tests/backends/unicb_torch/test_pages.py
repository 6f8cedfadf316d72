"""Pages whose blocks are written with PyTorch run on the trained checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from page_blocks import ROOT, blocks, run

import unicb

CHECKPOINT = ROOT / "examples" / "shapes" / "checkpoint"


@pytest.fixture
def pipe() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler.set_timesteps(4)
    return pipe


def test_without_callback(
    pipe: StableDiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    embeds = torch.cat(pipe.encode_prompt("a red star", "cpu", 1, True)[::-1])
    names = {name: getattr(unicb, name) for name in ("bind", "CFGCutoff", "Loop", "Preview")}
    names |= {"pipe": pipe, "unet": pipe.unet, "scheduler": pipe.scheduler, "torch": torch}
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    names |= {"embeds": embeds, "latents": latents}
    with torch.no_grad():
        assert run(ROOT / "docs" / "without_callback.md", names) == 2
    assert names["image"].size == (64, 64)
    assert names["callbacks"].state == "finished"
    assert not torch.equal(names["latents"], latents)


def test_readme_of_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names = {"latents": torch.zeros(2, 4, 16, 16)}
    page = ROOT / "examples" / "shapes" / "README.md"
    chosen = [b.text for b in blocks(page) if b.language == "python" and "mindspore" not in b.text]
    assert len(chosen) == 2
    with torch.no_grad():
        for text in chosen:
            exec(text, names)
    assert names["image"].size == (64, 64)
    assert names["pictures"].shape == (2, 3, 64, 64)
