"""Fitting colours to VAEs of all kinds that diffusers has."""

from __future__ import annotations

from functools import wraps
from typing import Any

import numpy as np
import pytest
import shapes_model
import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLTemporalDecoder,
    AutoencoderKLWan,
    DDIMScheduler,
    Flux2Pipeline,
    VQModel,
)
from shapes_model import VAEPipeline, load

from unicb.backend import backend_for
from unicb.latents import fit_rgb_factors
from unicb.latents._drawings import drawings
from unicb.latents.fit import _Coder


def test_no_gradients_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = load("AutoencoderKL", "vae")
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
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_half_precision() -> None:
    vae = load("AutoencoderKL", "vae", torch_dtype=torch.bfloat16)
    half = VAEPipeline(vae, DDIMScheduler())
    assert fit_rgb_factors(half, shapes_model.drawings(24, 3), held_out=8).mean > 0.97


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
    "LTX, which asks how noisy latents are": lambda: (ltx(timestep_conditioning=True), 8, 32),
    "SVD, which asks how many frames there are": lambda: (
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


def test_vae_of_videos_alone() -> None:
    """Allegro's has tiles of 24 frames, and encodes nothing smaller than one."""
    from diffusers import AutoencoderKLAllegro

    torch.manual_seed(0)
    blocks = {
        "down_block_types": ("AllegroDownBlock3D",) * 4,
        "up_block_types": ("AllegroUpBlock3D",) * 4,
        "block_out_channels": (8,) * 4,
        "temporal_downsample_blocks": (True, True, False, False),
        "temporal_upsample_blocks": (False, True, True, False),
    }
    vae = AutoencoderKLAllegro(
        latent_channels=4, layers_per_block=1, norm_num_groups=4, sample_size=128, **blocks
    ).eval()
    attributes = dict(vars(vae))
    fit = fit_rgb_factors(vae, samples=2, held_out=1)
    assert vars(vae) == attributes
    assert (fit.form.latent_channels, fit.form.spatial_scale) == (4, 8)
    assert np.isfinite(fit.form.factors).all()
    assert not vae.use_tiling
