"""Layouts of latents: every cell's colour is where the cell is, whatever the packing."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unicb import LatentFormat, PipelineFacts
from unicb.latents import ColourMap, Layout, builtin_formats, size_of_latents
from unicb.pipelines import facts_for, known_pipelines
from unicb_numpy import backend
from unicb_numpy.ops import StrictTensor

# Channel 0 is red, 1 is green, 2 is blue; the fourth shows nothing.
RGB = LatentFormat(
    name="rgb",
    latent_channels=4,
    spatial_scale=8,
    factors=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
    bias=(0.0, 0.0, 0.0),
    output_range=(0.0, 255.0),
    source="made up",
)
Array = npt.NDArray[Any]


def cells(rows: int, frames: int, height: int, width: int, seed: int = 0) -> Array:
    """Latents ``[b, c, t, h, w]`` whose colours are all different from their neighbours'."""
    shape = (rows, 4, frames, height, width)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)


def patches(x: Array, p: int) -> Array:
    """``[b, c, t, h, w]`` as ``[b, c, t, h / p, p, w / p, p]``."""
    b, c, t, h, w = x.shape
    return x.reshape(b, c, t, h // p, p, w // p, p)


# Each family's own packing, written down from its pipeline.


def plain(x: Array) -> Array:
    return x[:, :, 0]


def frames_first(x: Array) -> Array:
    return x.transpose(0, 2, 1, 3, 4)


def kandinsky(x: Array) -> Array:
    latents = x.transpose(0, 2, 3, 4, 1)
    return np.concatenate([latents, latents + 7, np.ones_like(latents[..., :1])], axis=-1)


def joyimage(x: Array) -> Array:
    return np.stack([255 - x, x], axis=1)


def ernie(x: Array) -> Array:
    b, c, _, h, w = x.shape
    return patches(x, 2)[:, :, 0].transpose(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)


def flux(x: Array) -> Array:
    b, c, _, h, w = x.shape
    return patches(x, 2)[:, :, 0].transpose(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def flux2(x: Array) -> Array:
    patchified = ernie(x)
    return patchified.reshape(*patchified.shape[:2], -1).transpose(0, 2, 1)


def ideogram(x: Array) -> Array:
    b, c, _, h, w = x.shape
    return patches(x, 2)[:, :, 0].transpose(0, 2, 4, 3, 5, 1).reshape(b, h * w // 4, 4 * c)


def tokens_of_cells(x: Array) -> Array:
    b, c, _, h, w = x.shape
    return x[:, :, 0].transpose(0, 2, 3, 1).reshape(b, h * w, c)


def layered(x: Array) -> Array:
    b, c, t, h, w = x.shape
    tokens = patches(x.transpose(0, 2, 1, 3, 4), 2).transpose(0, 1, 3, 5, 2, 4, 6)
    return tokens.reshape(b, t * h * w // 4, 4 * c)


def ltx(x: Array) -> Array:
    b, c, t, h, w = x.shape
    return x.transpose(0, 2, 3, 4, 1).reshape(b, t * h * w, c)


def tokens_behind(x: Array) -> Array:
    return np.concatenate([ltx(x), 255 - ltx(x)[:, :3]], axis=1)


def tokens_before(x: Array) -> Array:
    return np.concatenate([255 - ltx(x)[:, :3], ltx(x)], axis=1)


IMAGES = [
    ("bchw", plain),
    ("b(cpq)hw", ernie),
    ("b(hw)(cpq)", flux),
    ("b(hw)(cpq)", flux2),
    ("b(hw)(cpq)", tokens_of_cells),
    ("b(hw)(pqc)", ideogram),
]
VIDEOS = [
    ("bcthw", lambda x: x),
    ("btchw", frames_first),
    ("bthwc+", kandinsky),
    ("bncthw", joyimage),
    ("b(thw)(cpq)", layered),
    ("b(thw)(cpq)", ltx),
    ("b(thw+)(cpq)", tokens_behind),
    ("b(+thw)(cpq)", tokens_before),
]
SIZES = {
    "rows": st.integers(1, 3),
    "frames": st.integers(1, 4),
    "height": st.integers(1, 4),
    "width": st.integers(1, 4),
}


def shown(layout: str, latents: Array, size: tuple[int, ...], frames: Any = "middle") -> Array:
    pixels, finite = ColourMap(RGB, layout).rgb(StrictTensor(latents), backend.ops, size, frames)
    assert finite
    assert pixels.dtype == np.uint8
    return pixels


@pytest.mark.parametrize(("layout", "pack"), IMAGES)
@given(**SIZES)
def test_pictures(layout: str, pack: Any, rows: int, frames: int, height: int, width: int) -> None:
    x = cells(rows, 1, 2 * height, 2 * width)
    pixels = shown(layout, pack(x), x.shape[-2:])
    assert np.array_equal(pixels, x[:, :3, 0].transpose(0, 2, 3, 1))


@pytest.mark.parametrize(("layout", "pack"), VIDEOS)
@given(**SIZES)
def test_videos(layout: str, pack: Any, rows: int, frames: int, height: int, width: int) -> None:
    x = cells(rows, frames, 2 * height, 2 * width)
    latents, size = pack(x), x.shape[-3:]
    size = size[1:] if "(" not in layout else size
    video = x[:, :3].transpose(0, 2, 3, 4, 1)
    assert np.array_equal(shown(layout, latents, size), video[:, frames // 2])
    assert np.array_equal(shown(layout, latents, size, "animation"), video)
    strip = np.concatenate([video[:, i] for i in range(frames)], axis=2)
    assert np.array_equal(shown(layout, latents, size, "strip"), strip)


@pytest.mark.parametrize(("layout", "pack"), IMAGES + VIDEOS)
def test_one_bright_cell(layout: str, pack: Any) -> None:
    """One red cell is red at its own row and column, and black elsewhere."""
    x = np.zeros((1, 4, 1, 4, 6), dtype=np.float32)
    x[0, 0, 0, 1, 4] = 255.0
    # What is beside the picture in these latents must not be seen, whatever its value.
    pixels = shown(layout, pack(x), (1, 4, 6) if "t" in layout and "(" in layout else (4, 6))
    assert np.argwhere(pixels[0]).tolist() == [[1, 4, 0]]


def test_number_of_frames_follows_from_tokens() -> None:
    x = cells(1, 3, 4, 4)
    assert shown("b(thw)(cpq)", ltx(x), (4, 4), "animation").shape == (1, 3, 4, 4, 3)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_token_that_is_not_finite_is_black(bad: float) -> None:
    latents = flux(cells(1, 1, 4, 4) + 1)
    latents[0, 1, 7] = bad
    pixels, finite = ColourMap(RGB, "b(hw)(cpq)").rgb(StrictTensor(latents), backend.ops, (4, 4))
    assert not finite
    black = (pixels[0] == 0).all(axis=-1)
    assert black[:2, 2:].all()
    assert black.sum() == 4


@pytest.mark.parametrize(
    ("layout", "shape", "size"),
    [
        ("bchw", (1, 4, 8), None),
        ("bchw", (1, 16, 8, 8), None),
        ("bchw", (1, 4, 8, 8), (8, 4)),
        ("b(cpq)hw", (1, 17, 4, 4), None),
        ("b(hw)(cpq)", (1, 12, 16), None),
        ("b(hw)(cpq)", (1, 12, 16), (4, 4)),
        ("b(hw)(cpq)", (1, 12, 12), (6, 8)),
        ("b(thw)(cpq)", (1, 13, 4), (2, 3)),
        ("b(thw+)(cpq)", (1, 14, 4), (2, 3)),
        ("b(thw+)(cpq)", (1, 11, 4), (2, 2, 3)),
        ("bthwc+", (1, 1, 8, 8, 3), None),
        ("bthwc", (1, 1, 8, 8, 9), None),
    ],
)
def test_what_does_not_fit_is_named(layout: str, shape: Any, size: Any) -> None:
    latents = StrictTensor(np.zeros(shape))
    with pytest.raises(ValueError, match=re.escape(f"latents of shape {shape} do not fit")) as e:
        ColourMap(RGB, layout).rgb(latents, backend.ops, size)
    assert layout in str(e.value)
    assert ("no size" if size is None else " x ".join(map(str, size))) in str(e.value)


@pytest.mark.parametrize(
    "notation",
    ["", "chw", "bhw", "bchwx", "bcch", "bcwh", "b(hw)(cp)", "b(wh)c", "b(ht)wc", "b(hw", "cbhw"],
)
def test_bad_notation(notation: str) -> None:
    with pytest.raises(ValueError, match="is no layout of latents"):
        Layout(notation)


def test_bad_frames() -> None:
    with pytest.raises(ValueError, match="'middle', 'strip' or 'animation', not 'first'"):
        ColourMap(RGB).rgb(StrictTensor(np.zeros((1, 4, 2, 2))), backend.ops, frames="first")  # type: ignore[arg-type]


def test_one_small_transfer_and_one_upload() -> None:
    """The weights go to the device once; each preview costs one matrix product and one transfer
    of what it shows alone."""
    calls: list[tuple[str, tuple[int, ...]]] = []

    class Counting(type(backend.ops)):  # type: ignore[misc]
        def from_numpy(self, a: Array, like: StrictTensor) -> StrictTensor:
            calls.append(("from_numpy", a.shape))
            return super().from_numpy(a, like)  # type: ignore[no-any-return]

        def matmul(self, a: StrictTensor, b: StrictTensor) -> StrictTensor:
            calls.append(("matmul", ()))
            return super().matmul(a, b)  # type: ignore[no-any-return]

        def to_uint8(self, x: StrictTensor) -> Array:
            calls.append(("to_uint8", x.shape))
            return super().to_uint8(x)  # type: ignore[no-any-return]

    colours, latents = ColourMap(RGB, "b(thw)(cpq)"), StrictTensor(ltx(cells(1, 5, 4, 4)))
    for _ in range(2):
        colours.rgb(latents, Counting(), (5, 4, 4))
    product = [("matmul", ()), ("to_uint8", (1, 16, 4))]
    assert calls == [("from_numpy", (4, 4)), ("from_numpy", (4,)), *product, *product]


def all_facts() -> dict[str, PipelineFacts]:
    found = {name: facts_for(type(name, (), {})()) for name in known_pipelines()}
    return {name: facts for name, facts in found.items() if facts is not None}


@pytest.mark.parametrize("name", known_pipelines())
def test_facts_are_consistent(name: str) -> None:
    facts = all_facts()[name]
    if not facts.layout:
        assert (facts.latents, facts.size_from, facts.pixels_per_cell) == (None, (), "")
        return
    layout = Layout(facts.layout)
    assert facts.latents is None or facts.latents in builtin_formats()
    assert bool(facts.size_from) == (layout.token_axis is not None)
    assert len(facts.size_from) in (0, 2, 3)
    if facts.frames_axis is not None:
        assert layout.axes[facts.frames_axis] == "t"


class Pipe:
    vae_scale_factor = 16


@pytest.mark.parametrize(
    ("facts", "local_names", "size"),
    [
        ({}, {}, None),
        ({"size_from": ("h", "w")}, {"h": 4, "w": 6}, (4, 6)),
        (
            {"size_from": ("h", "w"), "pixels_per_cell": "vae_scale_factor"},
            {"h": 65, "w": 96},
            (4, 6),
        ),
        (
            {"size_from": ("h", "w"), "pixels_per_cell": "vae_scale_factor/2"},
            {"h": 32, "w": 48},
            (4, 6),
        ),
        ({"size_from": ("t", "h", "w")}, {"t": 2, "h": 4, "w": 6}, (2, 4, 6)),
    ],
)
def test_size_of_latents(facts: dict[str, Any], local_names: dict[str, int], size: Any) -> None:
    about = PipelineFacts(source="made up", **facts)
    assert size_of_latents(Pipe(), about, local_names) == size


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"size_from": ("h", "v")}, "h, v, divided by the pipeline's nothing"),
        ({"size_from": ("h", "w"), "pixels_per_cell": "ratio"}, "divided by the pipeline's ratio"),
    ],
)
def test_missing_size_is_named(facts: dict[str, Any], said: str) -> None:
    about = PipelineFacts(source="made up", **facts)
    with pytest.raises(ValueError, match=said):
        size_of_latents(Pipe(), about, {"h": 8, "w": 8})
