"""Pages whose blocks are written with PyTorch run on the trained checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, StableDiffusionPipeline
from diffusers.callbacks import SDCFGCutoffCallback
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


def called(pipe: StableDiffusionPipeline, function: Any, *tensors: str, **arguments: Any) -> Any:
    if tensors:
        arguments["callback_on_step_end_tensor_inputs"] = list(tensors)
    return pipe("a red star", num_inference_steps=3, callback_on_step_end=function, **arguments)


FAULTS: dict[str, Callable[[StableDiffusionPipeline], Any]] = {
    "inputs": lambda pipe: called(pipe, print, "nothing"),
    "key": lambda pipe: called(pipe, lambda p, i, t, given: given["prompt_embeds"]),
    "nothing returned": lambda pipe: called(pipe, lambda p, i, t, given: None),
    "two prompts": lambda pipe: pipe(
        ["a red star", "a green ring"],
        num_inference_steps=3,
        callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=0.4),
    ),
    "no callback": lambda pipe: DDPMPipeline(None, DDPMScheduler())(callback_on_step_end=print),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_errors_of_the_framework_are_found_by_their_words(
    pipe: StableDiffusionPipeline, fault: str
) -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    headings = [line[4:].replace("`", "") for line in page.splitlines() if line.startswith("### ")]
    with pytest.raises(Exception, match=r".") as raised:
        FAULTS[fault](pipe)
    said = f"{raised.type.__name__}: {raised.value}".replace("`", "")
    patterns = [re.escape(heading.partition(", or")[0]).replace("…", ".*") for heading in headings]
    assert any(re.match(pattern, said) for pattern in patterns), said
