"""Fitting colours to the VAE of examples/shapes, as mindone has it."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from mindone.diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline

from unicb import LatentFormat
from unicb.backend import backend_for
from unicb.latents import Fit, fit_rgb_factors
from unicb.latents.fit import _cells_of, _Coder, _correlations
from unicb_mindspore import enable_cpu

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "shapes"
CHECKPOINT = EXAMPLE / "checkpoint"
sys.path.insert(0, str(EXAMPLE))
try:
    from drawings import random_drawing
finally:
    sys.path.remove(str(EXAMPLE))


@cache
def pipeline() -> Any:
    enable_cpu()
    vae = AutoencoderKL.from_pretrained(str(CHECKPOINT / "vae"))
    scheduler = DDIMScheduler()
    return VAEPipeline(vae, scheduler)


class VAEPipeline(DiffusionPipeline):
    def __init__(self, vae: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(vae=vae, scheduler=scheduler)


def scenes(count: int) -> list[Any]:
    rng = np.random.default_rng(3)
    return [random_drawing(rng)[0] for _ in range(count)]


@cache
def fitted() -> Fit:
    return fit_rgb_factors(pipeline(), scenes(64))


def measure(form: LatentFormat) -> Any:
    """r with the full decode, of pictures that nobody was fitted on."""
    pictures = np.stack([np.asarray(scene).transpose(2, 0, 1) for scene in scenes(96)[64:]])
    coder = _Coder(backend_for(pipeline()), pipeline())
    latents, decoded = coder.latents_and_decoded((pictures / 127.5 - 1).astype(np.float32), 0)
    shown = latents @ np.array(form.factors) + np.array(form.bias)
    return _correlations(shown, _cells_of(decoded, form.spatial_scale))


def test_fit_on_own_pictures() -> None:
    """As good as the figures that the checkpoint was published with, which have more pictures."""
    fit, shipped = fitted(), LatentFormat.load(CHECKPOINT / "preview.toml")
    assert fit.mean > 0.98
    assert fit.minimum > 0.9
    ours, theirs = measure(fit.form), measure(shipped)
    assert ours.mean() > theirs.mean() - 0.005
    assert ours.min() > 0.9
    assert fit.form.spatial_scale == shipped.spatial_scale
    assert fit.form.vae_scaling_factor == pipeline().vae.config.scaling_factor


def test_fit_on_drawings_of_our_own() -> None:
    """This VAE was trained on a few colours: it is no good at others, and its decodes differ."""
    fit = fit_rgb_factors(pipeline())
    assert fit.mean > 0.85
    assert measure(fit.form).mean() > 0.93


def test_vae_itself(tmp_path: Path) -> None:
    """The same figures as from its pipeline; in a file, they are found again."""
    fit = fit_rgb_factors(pipeline().vae, scenes(24), held_out=8)
    assert fit == fit_rgb_factors(pipeline(), scenes(24), held_out=8)
    fit.save(tmp_path / "preview.toml")
    assert LatentFormat.load(tmp_path / "preview.toml") == fit.form


def test_nothing_is_left_changed() -> None:
    vae = pipeline().vae
    attributes = dict(vars(vae))
    state = {value.name: value.asnumpy().copy() for value in vae.get_parameters()}
    mode = vae.training
    fit_rgb_factors(pipeline(), samples=4, held_out=2)
    assert all(np.array_equal(v.asnumpy(), state[v.name]) for v in vae.get_parameters())
    assert vae.training == mode
    assert vars(vae) == attributes
