"""The parts of examples/shapes, each by itself, and what guidance does for its pictures."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shapes_model import CHECKPOINT, script

generating, judging = script("generate"), script("judge")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return generating.load_pipeline("torch", CHECKPOINT)


def test_it_is_small_enough_for_git() -> None:
    assert sum(f.stat().st_size for f in CHECKPOINT.rglob("*") if f.is_file()) <= 10_000_000


def test_every_part_loads_from_the_folder_alone(pipeline: Any) -> None:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    assert isinstance(pipeline.vae, AutoencoderKL)
    assert isinstance(pipeline.unet, UNet2DConditionModel)
    assert isinstance(pipeline.text_encoder, CLIPTextModel)
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    assert (pipeline.safety_checker, pipeline.feature_extractor) == (None, None)


def test_a_plain_call_draws_what_is_asked(pipeline: Any) -> None:
    picture = pipeline(
        "a red circle on a blue background",
        num_inference_steps=25,
        guidance_scale=generating.BEST_GUIDANCE,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert picture.size == (64, 64)
    assert judging.judge(picture) == judging.Verdict("circle", "red", "blue")


def test_guidance_makes_pictures_follow_their_prompts(pipeline: Any) -> None:
    scenes, latents = generating.random_requests(24, seed=11)
    captions = [scene.caption for scene in scenes]

    def joint(guidance: float) -> float:
        images = generating.generate(pipeline, captions, latents, guidance)
        share: float = judging.score(images, scenes).joint
        return share

    best, none = joint(generating.BEST_GUIDANCE), joint(1.0)
    assert best >= 0.9
    assert none <= best - 0.1


def _preview(latents: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Latents (N, 4, h, w) to colours (N, h, w, 3), by the checkpoint's preview data."""
    data = tomllib.loads((CHECKPOINT / "preview.toml").read_text(encoding="utf-8"))
    assert data["latent_channels"] == latents.shape[1]
    assert data["spatial_scale"] == 4
    assert data["output_range"] == [-1.0, 1.0]
    return np.moveaxis(latents, 1, -1) @ np.array(data["factors"]) + np.array(data["bias"])


def test_the_linear_preview_resembles_the_picture(pipeline: Any) -> None:
    scenes, start = generating.random_requests(8, seed=12)
    latents = pipeline(
        [scene.caption for scene in scenes],
        latents=torch.from_numpy(start),
        guidance_scale=generating.BEST_GUIDANCE,
        num_inference_steps=25,
        output_type="latent",
    ).images
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    colours = torch.nn.functional.avg_pool2d(decoded, 4).permute(0, 2, 3, 1).numpy()
    for preview, colour in zip(_preview(latents.numpy()), colours, strict=True):
        assert np.corrcoef(preview.ravel(), colour.ravel())[0, 1] >= 0.9
        assert np.abs(preview - colour).mean() <= 0.2


def test_the_autoencoder_keeps_what_a_drawing_shows(pipeline: Any) -> None:
    drawings = script("drawings")
    rng = np.random.default_rng(13)
    pictures, scenes = zip(*(drawings.random_drawing(rng) for _ in range(100)), strict=True)
    values = torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2)
    with torch.no_grad():
        latents = pipeline.vae.encode(values.float() / 127.5 - 1).latent_dist.mean
        decoded = pipeline.vae.decode(latents).sample.clamp(-1, 1)
    # Diffusion wants latents of spread 1, which is what the scaling factor is for.
    assert (latents * pipeline.vae.config.scaling_factor).std().item() == pytest.approx(1, abs=0.1)
    bytes_ = ((decoded + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert judging.score([Image.fromarray(b) for b in bytes_], scenes).joint >= 0.98
