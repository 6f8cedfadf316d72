"""Fitting colours: what is fitted on what, on VAEs whose right answer is known."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_vae import MEAN, MIX, STD, MomentsVAE, OwnedVAE, ToyVAE, VideoVAE, pipeline_with

from unicb import BackendNotFoundError, LatentFormat, UnsupportedPipelineError
from unicb.latents import fit_rgb_factors
from unicb.latents._drawings import drawings
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        ({}, lambda z: z),
        ({"scaling_factor": 0.5}, lambda z: z * 0.5),
        ({"scaling_factor": 0.5, "shift_factor": None}, lambda z: z * 0.5),
        ({"scaling_factor": 0.5, "shift_factor": 0.1}, lambda z: (z - 0.1) * 0.5),
        ({"latents_mean": MEAN, "latents_std": STD}, lambda z: (z - MEAN) / STD),
        (
            {"scaling_factor": 0.5, "latents_mean": MEAN, "latents_std": STD},
            lambda z: (z - MEAN) / STD * 0.5,
        ),
        ({"latents_mean": None, "latents_std": None, "scaling_factor": 0.5}, lambda z: z * 0.5),
    ],
)
@pytest.mark.parametrize("kind", [ToyVAE, VideoVAE, MomentsVAE])
def test_factors_act_on_what_the_sampler_sees(kind: Any, config: Any, seen: Any) -> None:
    fit = fit_rgb_factors(pipeline_with(kind(**config)), samples=6, held_out=2)
    colour = np.array([0.3, -0.6, 0.9])
    shown = seen(MIX @ colour) @ np.array(fit.form.factors) + np.array(fit.form.bias)
    np.testing.assert_allclose(shown, colour, atol=1e-4)
    assert fit.minimum > 0.999
    assert fit.mean >= fit.minimum
    assert (fit.samples, fit.held_out) == (6, 2)


def test_format_tells_the_vae(tmp_path: Any) -> None:
    vae = ToyVAE(scaling_factor=0.5, latents_mean=list(MEAN), latents_std=list(STD))
    form = fit_rgb_factors(pipeline_with(vae), name="mine", samples=6, held_out=2).form
    assert (form.name, form.latent_channels, form.spatial_scale) == ("mine", 4, 4)
    assert (form.vae_scaling_factor, form.vae_shift_factor) == (0.5, None)
    assert (form.vae_latents_mean, form.vae_classes) == (tuple(MEAN), ("ToyVAE",))
    assert "6 drawings, seed 0; r with the full decode: mean 1.0000" in form.source
    form.save(tmp_path / "preview.toml")
    assert type(form).load(tmp_path / "preview.toml") == form


def test_fit_saves_its_format(tmp_path: Any) -> None:
    fit = fit_rgb_factors(pipeline_with(ToyVAE()), samples=4, held_out=2)
    fit.save(tmp_path / "preview.toml")
    assert LatentFormat.load(tmp_path / "preview.toml") == fit.form


def test_vae_itself() -> None:
    vae = OwnedVAE(scaling_factor=0.5)
    alone = fit_rgb_factors(vae, samples=4, held_out=2)
    assert alone == fit_rgb_factors(pipeline_with(vae), samples=4, held_out=2)


def test_vae_of_nobody_is_refused() -> None:
    with pytest.raises(BackendNotFoundError, match="ToyVAE"):
        fit_rgb_factors(ToyVAE(), samples=4, held_out=2)


class PaellaVQModel(ToyVAE):
    """Its pictures are 0 to 1; pipelines multiply its latents by another factor."""

    def encode(self, x: StrictTensor, return_dict: bool = True) -> tuple[Any]:
        assert x.data.min() >= 0
        return super().encode(x, return_dict)


def test_black_and_white_of_the_vae_s_own() -> None:
    vae = PaellaVQModel(scale_factor=0.4, scaling_factor=7.0)
    pipe: Any = ToyPipeline()
    pipe.vqgan = vae
    form = fit_rgb_factors(pipe, samples=6, held_out=2).form
    colour = np.array([0.3, -0.6, 0.9])
    seen = MIX @ (colour / 2 + 0.5) / 0.4
    np.testing.assert_allclose(seen @ np.array(form.factors) + form.bias, colour, atol=1e-4)


def test_class_that_scales_otherwise() -> None:
    """SANA-Sprint's latents are smaller by its scheduler's sigma_data."""
    pipe: Any = type("SanaSprintPipeline", (ToyPipeline,), {})()
    pipe.vae = ToyVAE(scaling_factor=0.5)
    pipe.scheduler = SimpleNamespace(config=SimpleNamespace(sigma_data=0.25))
    form = fit_rgb_factors(pipe, samples=6, held_out=2).form
    colour = np.array([0.3, -0.6, 0.9])
    seen = MIX @ colour * 0.5 * 0.25
    np.testing.assert_allclose(seen @ np.array(form.factors) + form.bias, colour, atol=1e-4)


def test_random_numbers_are_as_before() -> None:
    class Draws(ToyVAE):
        def encode(self, x: StrictTensor, return_dict: bool = True) -> tuple[Any]:
            np.random.normal(size=3)
            return super().encode(x, return_dict)

    np.random.seed(5)
    wanted = np.random.normal()
    np.random.seed(5)
    fit_rgb_factors(pipeline_with(Draws()), samples=4, held_out=2)
    assert np.random.normal() == wanted


def test_vae_of_videos_alone_is_refused() -> None:
    vae = type("AutoencoderKLAllegro", (VideoVAE,), {})()
    with pytest.raises(UnsupportedPipelineError, match="encodes videos alone, no single picture"):
        fit_rgb_factors(pipeline_with(vae), samples=4, held_out=2)


def test_vae_that_has_tiles_of_several_frames() -> None:
    """Each picture is a video that stands still, of the size of a tile."""

    class AutoencoderKLAllegro(VideoVAE):
        kernel, use_tiling = (6, 80, 80), False

        def encode(self, x: StrictTensor, return_dict: bool = True) -> tuple[Any]:
            assert self.use_tiling
            assert x.shape == (1, 3, 6, 80, 80)
            assert (x.data == x.data[:, :, :1]).all()
            [made] = super().encode(x, return_dict)
            mixed = made.mode().data
            frames = np.concatenate([mixed * 0, mixed, mixed * 0], axis=2)  # that in the middle
            return (SimpleNamespace(mode=lambda: StrictTensor(frames)),)

        def decode(self, z: StrictTensor, return_dict: bool = True) -> tuple[StrictTensor]:
            [made] = super().decode(StrictTensor(z.data[:, :, 1:2]), return_dict)
            return (made.swapaxes(1, 2),)

    vae = AutoencoderKLAllegro()
    fit = fit_rgb_factors(pipeline_with(vae), samples=4, held_out=2)
    assert "use_tiling" not in vars(vae)
    assert fit.minimum > 0.999
    assert fit.form.spatial_scale == 4
    with pytest.raises(ValueError, match="multiple of 4 pixels, at least 80 pixels, not 64"):
        fit_rgb_factors(pipeline_with(vae), samples=4, held_out=2, size=64)


def test_own_pictures_of_any_size() -> None:
    pictures: list[Any] = [np.full((9, 30, 3), shade, np.uint8) for shade in range(0, 250, 50)]
    pictures += [Image.effect_noise((40, 20), 60) for _ in range(8)]
    vae = ToyVAE()
    fit = fit_rgb_factors(pipeline_with(vae), pictures, held_out=3, size=16)
    assert (fit.samples, fit.held_out) == (10, 3)
    assert {shape[1:] for shape in vae.calls[1:]} == {(3, 16, 16)}
    assert "10 pictures" in fit.form.source


def test_vae_of_rgba_gets_opaque_pictures() -> None:
    vae = ToyVAE(in_channels=4)
    assert fit_rgb_factors(pipeline_with(vae), samples=4, held_out=2).minimum > 0.999
    assert {shape[1] for shape in vae.calls} == {4}


@pytest.mark.parametrize(
    ("vae", "said"),
    [
        (None, "ToyPipeline is no VAE, and has no VAE that encodes and decodes"),
        (ToyVAE(in_channels=6), "encodes pictures of 6 channels, not RGB"),
        (ToyVAE(latents_mean=[0.0] * 64, latents_std=[1.0] * 64), "64 means for 4 channels"),
    ],
)
def test_other_vaes_are_refused(vae: Any, said: str) -> None:
    with pytest.raises(UnsupportedPipelineError, match=said):
        fit_rgb_factors(pipeline_with(vae), samples=4, held_out=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"size": 18}, "a multiple of 4 pixels, at least two, not 18"),
        ({"size": 4}, "at least two, not 4"),
        ({"held_out": 0}, "held_out must be at least 1, not 0"),
        ({"samples": 0}, "samples must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"images": [np.zeros((8, 8, 3), np.uint8)], "held_out": 1}, "1 pictures cannot be fitted"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit_rgb_factors(pipeline_with(ToyVAE()), **arguments)


def test_examples_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "docs" / "latents.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for number in range(20):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.effect_noise((20, 16), 5 * number + 5).save(tmp_path / "pictures" / f"{number}.png")
    names: dict[str, Any] = {"pipe": pipeline_with(OwnedVAE())}
    for block in blocks:
        exec(block, names)
    assert (tmp_path / "preview.toml").is_file()


def test_drawings() -> None:
    pictures = drawings(8, 32, seed=1)
    assert pictures.shape == (8, 3, 32, 32)
    assert pictures.dtype == np.float32
    assert np.abs(pictures).max() <= 1
    assert (pictures.std(axis=(2, 3)) > 0.01).all()
    assert np.array_equal(pictures, drawings(8, 32, seed=1))
    assert not np.array_equal(pictures, drawings(8, 32, seed=2))
