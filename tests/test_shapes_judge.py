"""The judge of examples/shapes, which must be right before it may judge a model."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "shapes"


@pytest.fixture(scope="module")
def drawings() -> Any:
    return _module("drawings")


@pytest.fixture(scope="module")
def judging() -> Any:
    return _module("judge")


def _module(name: str) -> Any:
    sys.path.insert(0, str(EXAMPLE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLE))


def _noisy(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8)), np.float64)
    grain = rng.normal(0, 12, blurred.shape)
    return Image.fromarray(np.clip(blurred + grain, 0, 255).astype(np.uint8))


def test_right_on_held_out_drawings(judging: Any) -> None:
    assert judging.score_on_drawings(1000).joint >= 0.98


def test_right_on_blurred_and_grainy_drawings(drawings: Any, judging: Any) -> None:
    rng = np.random.default_rng(3)
    pictures, scenes = zip(*(drawings.random_drawing(rng) for _ in range(200)), strict=True)
    assert judging.score([_noisy(p, rng) for p in pictures], scenes).joint >= 0.95


def test_every_scene_is_told_apart(drawings: Any, judging: Any) -> None:
    for scene in drawings.all_scenes():
        found = judging.judge(drawings.draw(scene, 30.5, 33.0, 17.0))
        assert (found.shape, found.colour, found.background) == (
            scene.shape,
            scene.colour,
            scene.background,
        )


def test_larger_pictures_are_judged_alike(drawings: Any, judging: Any) -> None:
    scene = drawings.Scene("star", "yellow", "blue")
    picture = drawings.draw(scene, 128.0, 120.0, 70.0, size=256)
    assert judging.score([picture], [scene]).joint == 1.0


def test_swapped_colours_are_wrong(drawings: Any, judging: Any) -> None:
    shown = drawings.draw(drawings.Scene("circle", "red", "blue"), 32, 32, 16)
    score = judging.score([shown], [drawings.Scene("circle", "blue", "red")])
    assert (score.shape, score.colour, score.background, score.joint) == (1.0, 0.0, 0.0, 0.0)


def test_another_shape_is_wrong(drawings: Any, judging: Any) -> None:
    shown = drawings.draw(drawings.Scene("circle", "red", "blue"), 32, 32, 16)
    score = judging.score([shown], [drawings.Scene("square", "red", "blue")])
    assert (score.shape, score.colour, score.background, score.joint) == (0.0, 1.0, 1.0, 0.0)


def test_joint_needs_all_three_in_the_same_picture(drawings: Any, judging: Any) -> None:
    shown = drawings.draw(drawings.Scene("ring", "white", "black"), 32, 32, 16)
    scenes = [drawings.Scene("ring", "red", "black"), drawings.Scene("cross", "white", "black")]
    score = judging.score([shown, shown], scenes)
    assert (score.shape, score.colour, score.background, score.joint) == (0.5, 0.5, 1.0, 0.0)


def test_a_plain_picture_shows_no_shape(judging: Any) -> None:
    found = judging.judge(Image.new("RGB", (64, 64), (220, 40, 40)))
    assert (found.shape, found.colour, found.background) == ("unclear", "unclear", "red")


def test_colours_outside_the_palette_are_unclear(judging: Any) -> None:
    picture = Image.new("RGB", (64, 64), (128, 128, 128))
    picture.paste((0, 255, 255), (20, 20, 44, 44))
    found = judging.judge(picture)
    assert (found.shape, found.colour, found.background) == ("square", "unclear", "unclear")


def test_pure_noise_shows_no_shape(judging: Any) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert judging.judge(Image.fromarray(noise)).shape == "unclear"


def test_two_shapes_are_no_one_shape(drawings: Any, judging: Any) -> None:
    picture = drawings.draw(drawings.Scene("circle", "red", "white"), 18, 32, 11)
    other = drawings.draw_mask("square", 48.0, 32.0, 12.0)
    picture.paste(drawings.COLOURS["red"], mask=other)
    assert judging.judge(picture).shape == "unclear"


def test_an_unknown_shape_is_refused(drawings: Any) -> None:
    with pytest.raises(ValueError, match="unknown shape 'blob'"):
        drawings.draw_mask("blob", 32, 32, 16)
