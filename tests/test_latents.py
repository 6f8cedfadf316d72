"""Latent formats: the data, whose they are, and what is said when they do not fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unicb import LatentFormat, UnsupportedPipelineError
from unicb.latents import find_format, to_rgb
from unicb.latents.formats import builtin_formats
from unicb.pipelines import facts_for, known_pipelines
from unicb_numpy import backend
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

OWN = """
name = "own"
latent_channels = 2
spatial_scale = 4
factors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
bias = [0.0, 0.0, 0.5]
output_range = [0.0, 1.0]
source = "made up"
"""


def vae(**config: Any) -> SimpleNamespace:
    return SimpleNamespace(config=SimpleNamespace(**config))


def find(pipe: ToyPipeline) -> LatentFormat:
    return find_format(pipe, facts_for(pipe))


def test_formats_of_known_pipelines_exist_and_have_a_source() -> None:
    every = [facts_for(type(name, (), {})()) for name in known_pipelines()]
    named = {facts.latents for facts in every if facts is not None and facts.latents is not None}
    assert {"sd", "sdxl"} <= named
    for name in named:
        assert builtin_formats()[name].source


def test_format_of_the_class(pipe: ToyPipeline) -> None:
    assert find(pipe).name == "sd"
    pipe.vae = vae(latent_channels=4, scaling_factor=0.18215)  # type: ignore[attr-defined]
    assert find(pipe).name == "sd"


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"latent_channels": 16, "scaling_factor": 0.18215}, "16 latent channels instead of 4"),
        ({"latent_channels": 4, "scaling_factor": 0.13025}, "scaling factor 0.13025 instead of"),
    ],
)
def test_foreign_vae_is_refused(pipe: ToyPipeline, config: dict[str, Any], found: str) -> None:
    pipe.vae = vae(**config)  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedPipelineError, match=found):
        find(pipe)


def test_tiny_autoencoder_is_welcome(pipe: ToyPipeline) -> None:
    pipe.vae = vae(latent_channels=4, scaling_factor=1.0, latent_magnitude=3)  # type: ignore[attr-defined]
    assert find(pipe).name == "sd"


def test_unknown_class_is_refused(pipe: ToyPipeline) -> None:
    with pytest.raises(UnsupportedPipelineError, match=r"no preview for ToyPipeline.*factors="):
        find_format(pipe, None)


def test_checkpoint_brings_its_own(pipe: ToyPipeline, tmp_path: Path) -> None:
    (tmp_path / "preview.toml").write_text(OWN)
    pipe.name_or_path = str(tmp_path)  # type: ignore[attr-defined]
    form = find(pipe)
    assert (form.name, form.spatial_scale, form.vae_scaling_factor) == ("own", 4, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OWN.replace("bias = [0.0, 0.0, 0.5]", ""), "lacks: bias"),
        (OWN + "colour = 1\n", "unknown fields: colour"),
        (OWN.replace("latent_channels = 2", "latent_channels = 3"), "needs 3 rows of 3 factors"),
        (OWN.replace("[0.0, 0.0, 0.5]", "[0.0]"), "3 biases"),
        ("name = ", "preview.toml: Invalid value"),
    ],
)
def test_bad_file_names_itself_and_the_fault(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "preview.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        LatentFormat.load(path)
    assert str(path) in str(caught.value)


def test_rows_and_columns_stay_where_they_are(tmp_path: Path) -> None:
    """One bright cell is bright at its own row and column; a transposed preview fails."""
    (tmp_path / "own.toml").write_text(OWN)
    form = LatentFormat.load(tmp_path / "own.toml")
    latents = np.zeros((1, 2, 3, 5), dtype=np.float32)
    latents[0, 0, 1, 4] = 1.0
    pixels, finite = to_rgb(StrictTensor(latents), form, backend.ops)
    assert finite
    assert pixels.shape == (1, 3, 5, 3)
    assert np.argwhere(pixels[0, :, :, 0] == 255).tolist() == [[1, 4]]
    assert (pixels[..., 2] == 127).all()


@pytest.mark.parametrize("shape", [(4, 8, 8), (1, 2, 4, 8, 8), (1, 16, 8, 8), (1, 64, 4)])
def test_latents_of_another_shape_are_told(shape: tuple[int, ...]) -> None:
    latents = StrictTensor(np.zeros(shape))
    with pytest.raises(ValueError, match=r"are not \[batch, 4, height, width\]"):
        to_rgb(latents, builtin_formats()["sd"], backend.ops)
