"""Latent formats: the data, whose they are, and what is said when they do not fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unicb import LatentFormat, PipelineFacts, UnsupportedPipelineError
from unicb.latents import builtin_formats, find_format, to_rgb
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


def test_formats_are_fits_of_one_kind() -> None:
    """Colours around black to white for latents around 0, in -1..1."""
    for name, form in builtin_formats().items():
        assert form.name == name
        assert form.output_range == (-1.0, 1.0)
        assert bool(form.vae_classes) == (name != "pixels")  # which is of pipelines without one
        spread = np.abs(np.asarray(form.factors)).sum(axis=0)
        assert (spread > 0.3).all(), name
        assert (spread < 6).all(), name
        assert np.abs(form.bias).max() < 0.5


def test_formats_tell_their_vaes_apart() -> None:
    """A VAE with what one format says of its VAE is that format's, and no other's."""
    for name, form in builtin_formats().items():
        for kind in form.vae_classes:
            pipe = pipeline_with(vae_of(form, kind))
            assert find_format(pipe, PipelineFacts(source="made up")).name == name


def vae_of(form: LatentFormat, kind: str) -> Any:
    fields = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
    config = {name: getattr(form, f"vae_{name}") for name in fields}
    config = {name: value for name, value in config.items() if value is not None}
    channels = (
        "z_dim" if kind in ("AutoencoderKLWan", "AutoencoderKLQwenImage") else "latent_channels"
    )
    config[channels] = form.latent_channels
    return type(kind, (), {"config": SimpleNamespace(**config)})()


def pipeline_with(vae: Any) -> Any:
    return SimpleNamespace(vae=vae)


WAN22, FLUX = builtin_formats()["wan22"], builtin_formats()["flux"]


def test_class_with_another_known_vae_has_its_format() -> None:
    """Wan's pipelines come with the VAE of 2.1 or that of 2.2."""
    facts = PipelineFacts(source="made up", latents="wan21", layout="bcthw")
    pipe = pipeline_with(vae_of(WAN22, "AutoencoderKLWan"))
    assert find_format(pipe, facts) is WAN22
    with pytest.raises(UnsupportedPipelineError, match="its VAE has 16 latent channels instead"):
        find_format(pipeline_with(vae(latent_channels=16)), PipelineFacts("here", latents="sd"))


@pytest.mark.parametrize(
    ("form", "changed", "said"),
    [
        (FLUX, {"shift_factor": 0.0609}, "shift factor 0.0609 instead of 0.1159"),
        (FLUX, {"shift_factor": None}, "shift factor 0.0 instead of 0.1159"),
        (FLUX, {"in_channels": 4}, "pictures of 4 channels instead of 3"),
        (FLUX, {"latents_mean": [0.1] * 16}, "another latents_mean in its configuration"),
        (WAN22, {"latents_mean": [0.0] * 48}, "another latents_mean in its configuration"),
        (WAN22, {"latents_std": [1.0] * 48}, "another latents_std in its configuration"),
    ],
)
def test_other_vae_of_the_same_class_is_noticed(
    form: LatentFormat, changed: dict[str, Any], said: str
) -> None:
    other = vae_of(form, form.vae_classes[0])
    vars(other.config).update(changed)
    facts = PipelineFacts(source="made up", latents=form.name)
    with pytest.raises(UnsupportedPipelineError, match=said):
        find_format(pipeline_with(other), facts)


def test_patches_of_pixels_are_still_rgb() -> None:
    """Wan 2.2's VAE counts the 2x2 pixels of a patch as 12 channels."""
    same = vae_of(WAN22, "AutoencoderKLWan")
    vars(same.config).update(in_channels=12, patch_size=2)
    assert find_format(pipeline_with(same), PipelineFacts("here", latents="wan22")) is WAN22


def test_what_is_no_picture_is_refused_at_once() -> None:
    with pytest.raises(UnsupportedPipelineError, match="not one picture or video in each row"):
        find_format(pipeline_with(None), PipelineFacts(source="made up", layout=""))


def tables() -> str:
    """The tables of docs/latents.md, from the data."""
    lines = [
        "| format | channels | pixels per cell | classes of the VAE | source |",
        "|---|---|---|---|---|",
    ]
    for name, form in builtin_formats().items():
        kinds = ", ".join(f"`{kind}`" for kind in form.vae_classes)
        cells = (f"`{name}`", form.latent_channels, form.spatial_scale, kinds, form.source)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "| format | layout | pipelines |", "|---|---|---|"]
    groups: dict[tuple[str, str], list[str]] = {}
    for name in known_pipelines():
        facts = facts_for(type(name, (), {})())
        assert facts is not None
        if facts.layout:
            form_name = "the VAE's, or none" if facts.latents is None else f"`{facts.latents}`"
            groups.setdefault((form_name, facts.layout), []).append(name.removesuffix("Pipeline"))
    order = [f"`{name}`" for name in builtin_formats()]
    for key in sorted(groups, key=lambda key: ([*order, key[0]].index(key[0]), key[1])):
        lines.append(f"| {key[0]} | `{key[1]}` | {', '.join(groups[key])} |")
    return "\n".join(lines)


def test_tables_of_the_docs_are_the_data() -> None:
    text = (Path(__file__).parents[1] / "docs" / "latents.md").read_text(encoding="utf-8")
    missing = [line for line in tables().splitlines() if line not in text.splitlines()]
    assert not missing, "not in docs/latents.md:\n" + "\n".join(missing)


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


@pytest.mark.parametrize("name", builtin_formats())
def test_saved_formats_are_read_back_equal(tmp_path: Path, name: str) -> None:
    form = builtin_formats()[name]
    form.save(tmp_path / "preview.toml")
    assert LatentFormat.load(tmp_path / "preview.toml") == form


NUMBERS = st.floats(allow_nan=False, width=64)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(name=TEXT, source=TEXT, row=st.tuples(NUMBERS, NUMBERS, NUMBERS), shift=st.none() | NUMBERS)
def test_any_format_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    source: str,
    row: tuple[float, float, float],
    shift: float | None,
) -> None:
    path = tmp_path_factory.mktemp("formats") / "own.toml"
    form = LatentFormat(
        name, 1, 8, (row,), row, (-1, 1.0), source, vae_shift_factor=shift, vae_latents_std=row[:1]
    )
    form.save(path)
    assert LatentFormat.load(path) == form


def test_statistics_must_be_one_for_each_channel() -> None:
    row = ((0.0,) * 3,) * 2
    with pytest.raises(ValueError, match="vae_latents_mean needs 2 numbers, not 1"):
        LatentFormat("x", 2, 8, row, row[0], (-1.0, 1.0), "here", vae_latents_mean=(0.0,))
