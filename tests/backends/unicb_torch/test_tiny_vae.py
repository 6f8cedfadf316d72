"""The tiny autoencoder of examples/shapes beside the full one, as diffusers has them."""

from __future__ import annotations

import importlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "shapes"
CHECKPOINT = EXAMPLE / "checkpoint"


def _module(name: str) -> Any:
    sys.path.insert(0, str(EXAMPLE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLE))


figures, generating = _module("tiny_figures"), _module("generate")


@cache
def tiny() -> Any:
    return AutoencoderTiny.from_pretrained(CHECKPOINT / "tiny_vae")


@cache
def full() -> Any:
    return AutoencoderKL.from_pretrained(CHECKPOINT / "vae")


@cache
def drawings() -> Any:
    """Drawings that neither the training nor the published figures have seen."""
    return figures.make_drawings(60, 314)


def latents() -> Any:
    return figures.encode(full(), drawings()) * full().config.scaling_factor


def test_it_takes_latents_as_the_sampler_has_them() -> None:
    config = tiny().config
    assert (config.scaling_factor, config.shift_factor) == (1.0, 0.0)
    assert config.latent_channels == full().config.latent_channels
    assert tiny().decode(torch.zeros(2, 4, 16, 16)).sample.shape == (2, 3, 64, 64)


def test_it_is_no_part_of_the_pipeline() -> None:
    index = json.loads((CHECKPOINT / "model_index.json").read_text(encoding="utf-8"))
    assert not any("tiny" in str(part).lower() for part in index.items())


def test_it_is_tiny() -> None:
    def work(network: Any) -> int:
        """Multiplications in the convolutions of one decode."""
        total = 0

        def count(layer: Any, _: Any, output: Any) -> None:
            nonlocal total
            total += output.numel() * layer.weight[0].numel()

        layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
        hooks = [layer.register_forward_hook(count) for layer in layers]
        with torch.no_grad():
            network.decode(torch.zeros(1, 4, 16, 16))
        for hook in hooks:
            hook.remove()
        return total

    assert work(tiny()) < work(full()) / 3
    size = (CHECKPOINT / "tiny_vae" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert size < 500_000


def test_it_decodes_as_the_full_one() -> None:
    """Measured on 500 drawings: r 0.995 in the mean and 0.975 at the least, 33.1 dB."""
    found = figures.compare_decodes(tiny(), full(), latents())
    assert found.r.mean() > 0.99
    assert found.r.min() > 0.96
    assert found.psnr.mean() > 31


def test_it_shows_more_than_colours_of_cells() -> None:
    """Or the linear preview, which costs next to nothing, would do."""
    shown = figures.linear_preview(CHECKPOINT / "preview.toml", latents())
    linear = figures.likeness(shown, figures.decode(full(), latents()))
    found = figures.compare_decodes(tiny(), full(), latents())
    assert (found.r > linear.r).all()
    assert found.psnr.mean() > linear.psnr.mean() + 3


def test_the_samplers_scale_is_the_right_one() -> None:
    wanted = figures.decode(full(), latents())

    def psnr(scale: float) -> float:
        mean: float = figures.likeness(
            figures.decode(tiny(), scale * latents()), wanted
        ).psnr.mean()
        return mean

    # 1 / 0.787 is the scale that the full decoder takes.
    assert max((0.787, 1.0, 1 / 0.787), key=psnr) == 1.0


@pytest.mark.parametrize(("guidance", "mean", "least"), [(1.0, 0.85, 0.6), (7.0, 0.97, 0.9)])
def test_it_decodes_denoised_estimates(guidance: float, mean: float, least: float) -> None:
    """In the middle of a run, where latents are not those of any drawing.

    Measured on these runs: 0.894 in the mean and 0.734 at the least with guidance 1, where much is
    faint and grey; 0.989 and 0.941 with guidance 7.
    """
    pipeline = generating.load_pipeline("torch", CHECKPOINT)
    denoised, _ = figures.record(pipeline, guidance, prompts=4)
    found = figures.compare_decodes(tiny(), full(), denoised.flatten(0, 1))
    assert found.r.mean() > mean
    assert found.r.min() > least


def test_drawings_survive_the_way_through_it() -> None:
    """Measured: r of the latents 0.999, of the pictures 0.987; 29.2 dB (the full one's 32.5)."""
    pictures = drawings().normalised(torch.arange(len(drawings())))
    encoded = figures.tiny_encode(tiny(), drawings())
    assert np.corrcoef(encoded.flatten(), latents().flatten())[0, 1] > 0.998
    found = figures.likeness(figures.decode(tiny(), encoded), pictures)
    assert found.r.mean() > 0.98
    assert found.psnr.mean() > 28


def test_the_class_as_a_whole_runs() -> None:
    """`forward` brings the latents to bytes on the way: none may leave the range that it allows."""
    pictures = drawings().normalised(torch.arange(8))
    with torch.no_grad():
        found = figures.likeness(tiny()(pictures).sample.clamp(-1, 1), pictures)
    assert found.psnr.mean() > 28
