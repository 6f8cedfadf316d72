"""Fit and write the checkpoint's preview data: a linear map from latents to colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from dataset import Drawings
from diffusers import AutoencoderKL
from models import SPATIAL_SCALE
from torch import Tensor
from vae_stage import encode, picture_colours


@dataclass(frozen=True)
class PreviewFit:
    """colour = latents @ factors + bias, colours in [-1, 1] and latents as diffusion sees them."""

    factors: Tensor
    """(4, 3), float32."""
    bias: Tensor
    """(3,), float32."""

    def apply(self, latents: Tensor) -> Tensor:
        """Turn latents (N, 4, h, w) into colours (N, 3, h, w)."""
        colours = torch.einsum("nchw,cd->ndhw", latents, self.factors)
        return colours + self.bias[:, None, None]


def _rows(values: Tensor) -> Tensor:
    return values.movedim(1, -1).flatten(0, -2)


def fit_preview(latents: Tensor, colours: Tensor) -> PreviewFit:
    """Fit by least squares over all cells of latents (N, 4, h, w) and colours (N, 3, h, w)."""
    cells = _rows(latents)
    with_one = torch.cat([cells, torch.ones(len(cells), 1)], 1)
    solution = torch.linalg.lstsq(with_one, _rows(colours)).solution
    return PreviewFit(solution[:-1], solution[-1])


def correlations(previews: Tensor, colours: Tensor) -> Tensor:
    """Compute Pearson's r of each preview with its picture, over all cells and colours: (N,)."""
    a, b = previews.flatten(1), colours.flatten(1)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def _decoded_colours(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode unscaled latents in full, and average to one colour for each latent cell."""
    with torch.no_grad():
        chunks = [picture_colours(vae.decode(chunk).sample) for chunk in latents.split(50)]
    return torch.cat(chunks)


def write_preview(
    path: Path, vae: AutoencoderKL, latents: Tensor, training: Drawings, held_out: Drawings
) -> str:
    """Fit on the training drawings and their scaled latents, measure on others, write both.

    Returns the measure in words.
    """
    fit = fit_preview(latents, picture_colours(training.normalised(torch.arange(len(training)))))
    others = encode(vae, held_out)
    previews = fit.apply(others * vae.config.scaling_factor)
    r = correlations(previews, _decoded_colours(vae, others))
    measure = f"r with the full decode: mean {r.mean():.4f}, minimum {r.min():.4f}"
    text = _toml(fit, len(training), f"{measure} ({len(held_out)} held-out drawings)")
    path.write_text(text, encoding="utf-8")
    return measure


def _numbers(values: Tensor) -> str:
    return "[" + ", ".join(f"{value:.5f}" for value in values.tolist()) + "]"


def _toml(fit: PreviewFit, count: int, measure: str) -> str:
    rows = "".join(f"  {_numbers(row)},\n" for row in fit.factors)
    return (
        f"# Least squares over {count} training drawings, each averaged to the latents' size.\n"
        f"# Pearson's {measure}.\n"
        "# Acts on latents as a step callback sees them: colour = latents @ factors + bias.\n"
        'name = "shapes"\n'
        f"latent_channels = {len(fit.factors)}\n"
        f"spatial_scale = {SPATIAL_SCALE}  # picture pixels per latent cell\n"
        f"factors = [  # red, green, blue for each latent channel\n{rows}]\n"
        f"bias = {_numbers(fit.bias)}\n"
        "output_range = [-1.0, 1.0]  # the values that are black and white\n"
        f'source = "least squares over {count} drawings, examples/shapes/train.py"\n'
    )
