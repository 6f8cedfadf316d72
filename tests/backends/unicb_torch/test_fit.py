"""Fitting colours to the VAE of examples/shapes, as diffusers has it."""

from __future__ import annotations

import sys
from functools import cache, wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLTemporalDecoder,
    AutoencoderKLWan,
    DDIMScheduler,
    DiffusionPipeline,
    Flux2Pipeline,
    VQModel,
)

from unicb import LatentFormat
from unicb.backend import backend_for
from unicb.latents import Fit, fit_rgb_factors
from unicb.latents._drawings import drawings
from unicb.latents.fit import _cells_of, _Coder, _correlations

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


def test_no_gradients_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = pipeline().vae
    kept = []
    for name in ("encode", "decode"):
        own = getattr(vae, name)

        def watched(*args: Any, own: Any = own, **kwargs: Any) -> Any:
            kept.append(torch.is_grad_enabled())
            return own(*args, **kwargs)

        monkeypatch.setattr(vae, name, wraps(own)(watched))
    with torch.enable_grad():
        fit_rgb_factors(vae, samples=4, held_out=2)
    assert len(kept) >= 4
    assert not any(kept)


def test_nothing_is_left_changed() -> None:
    vae = pipeline().vae
    attributes = dict(vars(vae))
    state = {name: value.clone() for name, value in vae.state_dict().items()}
    modes = [module.training for module in vae.modules()]
    random = torch.get_rng_state()
    fit_rgb_factors(pipeline(), samples=4, held_out=2)
    assert all(torch.equal(value, state[name]) for name, value in vae.state_dict().items())
    assert [module.training for module in vae.modules()] == modes
    assert all(parameter.grad is None for parameter in vae.parameters())
    assert vars(vae) == attributes
    assert torch.equal(torch.get_rng_state(), random)


def test_half_precision() -> None:
    half = VAEPipeline(
        AutoencoderKL.from_pretrained(str(CHECKPOINT / "vae"), torch_dtype=torch.bfloat16),
        DDIMScheduler(),
    )
    assert fit_rgb_factors(half, scenes(24), held_out=8).mean > 0.97


def test_video_vae_with_statistics_of_its_own() -> None:
    """Wan's VAE encodes videos of one frame; its latents are normalised by its configuration."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval()
    attributes = dict(vars(vae))
    fit = fit_rgb_factors(vae, samples=6, held_out=2, size=32)
    assert vars(vae) == attributes
    assert (fit.form.latent_channels, fit.form.spatial_scale) == (16, 8)
    assert fit.form.vae_latents_mean == tuple(vae.config.latents_mean)
    assert np.isfinite(fit.form.factors).all()


def ltx(**more: Any) -> Any:
    blocks = {"block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    layers = {"layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 5}
    return AutoencoderKLLTXVideo(latent_channels=8, **blocks, **layers, **more)


def two_blocks(kind: Any, **more: Any) -> Any:
    own = {"down_block_types": ("DownEncoderBlock2D",) * 2, "block_out_channels": (32, 32)}
    return kind(**own, **more)


VAES = {
    "LTX, which is told how noisy latents are": lambda: (ltx(timestep_conditioning=True), 8, 32),
    "SVD, which is told how many frames there are": lambda: (
        two_blocks(AutoencoderKLTemporalDecoder),
        4,
        2,
    ),
    "Kandinsky, which does not scale": lambda: (
        two_blocks(VQModel, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4),
        4,
        2,
    ),
    "Mochi, which makes features of colours": lambda: (
        AutoencoderKLMochi(
            encoder_block_out_channels=(32,) * 4,
            decoder_block_out_channels=(32,) * 4,
            layers_per_block=(1,) * 5,
        ),
        12,
        8,
    ),
}


@pytest.mark.parametrize("name", VAES)
def test_vaes_of_all_kinds(name: str) -> None:
    torch.manual_seed(0)
    vae, channels, scale = VAES[name]()
    fit = fit_rgb_factors(vae.eval(), samples=4, held_out=2, size=4 * scale)
    assert (fit.form.latent_channels, fit.form.spatial_scale) == (channels, scale)
    assert np.isfinite(fit.form.factors).all()


def test_vae_with_statistics_in_its_weights() -> None:
    """Flux 2's latents are normalised by running means of 2x2 cells: here, each by its own."""
    torch.manual_seed(0)
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
    ).eval()
    vae.bn.running_mean.copy_(torch.arange(16) / 8)
    vae.bn.running_var.copy_(torch.arange(1, 17) / 4)
    pipe = VAEPipeline(vae, DDIMScheduler())
    pictures = drawings(2, 32, 0)
    found, _ = _Coder(backend_for(pipe), pipe).latents_and_decoded(pictures, 0)
    with torch.no_grad():
        raw = vae.encode(torch.from_numpy(pictures)).latent_dist.mode()
        patches = Flux2Pipeline._patchify_latents(raw)
        std = torch.sqrt(vae.bn.running_var + vae.config.batch_norm_eps).view(1, -1, 1, 1)
        wanted = Flux2Pipeline._unpatchify_latents(
            (patches - vae.bn.running_mean.view(1, -1, 1, 1)) / std
        )
    np.testing.assert_allclose(found, wanted.numpy().transpose(0, 2, 3, 1), atol=1e-5)
