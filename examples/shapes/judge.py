"""Say which shape, colour and background a picture shows. Knows nothing of the model.

Run as a program it measures itself on fresh drawings; with `--framework` it also generates
pictures from the checkpoint and counts how many show what their prompt asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from drawings import BACKGROUNDS, COLOURS, RGB, SHAPES, SIZE, Scene, draw_mask, random_drawing
from numpy.typing import NDArray
from PIL import Image

UNCLEAR = "unclear"
HELD_OUT_SEED = 90210
"""No training run draws with this seed unless told to."""

# A colour further than this from all of the palette, of a greatest possible 441, is none of it.
# The two palette colours nearest to each other are 106 apart.
_COLOUR_REACH = 75.0
# Part of the picture that must differ from the background. The smallest training shape has 5 %.
_SMALLEST_AREA = 0.02
# Overlap (intersection over union) with the best rendered shape; the right one has 0.89 or
# more in a drawing, and the next best at most 0.84.
_LEAST_OVERLAP = 0.7

Pixels = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """A verdict says what the picture shows; each is `UNCLEAR` where it shows none of what is
    known."""

    shape: str
    colour: str
    background: str


def _nearest(colour: Pixels, palette: dict[str, RGB]) -> str:
    distances = {name: float(np.linalg.norm(colour - rgb)) for name, rgb in palette.items()}
    best = min(distances, key=distances.__getitem__)
    return best if distances[best] <= _COLOUR_REACH else UNCLEAR


def _border(pixels: Pixels) -> Pixels:
    """Return the pixels (N, 3) of a frame two wide, which no shape reaches."""
    inside = np.zeros(pixels.shape[:2], bool)
    inside[2:-2, 2:-2] = True
    return pixels[~inside]


def _foreground_colour(pixels: Pixels, background: Pixels) -> Pixels | None:
    """Return the median colour (3,) of what differs clearly from the background, if there is
    enough."""
    distance = np.linalg.norm(pixels - background, axis=-1)
    # Half of the greatest distance leaves out the mixed colours of smooth edges.
    different = distance > max(40.0, float(np.quantile(distance, 0.99)) / 2)
    if different.mean() < _SMALLEST_AREA:
        return None
    median: Pixels = np.median(pixels[different], axis=0)
    return median


def _coverage(pixels: Pixels, background: Pixels, foreground: Pixels) -> Pixels:
    """Return how far each pixel (H, W) is on the way from background, 0, to foreground, 1."""
    way = foreground - background
    share: Pixels = (pixels - background) @ way / (way @ way)
    # Steeper about the middle: an edge stays where it is, and faint noise all over the background
    # does not add up to area.
    return np.clip(2 * share - 0.5, 0, 1)


def _centre_and_area(mask: Pixels) -> tuple[float, float, float]:
    """Measure the centre of gravity (x, y) and the area of a mask (H, W), in pixels."""
    rows, columns = np.indices(mask.shape) + 0.5
    area = float(mask.sum())
    return float((columns * mask).sum()) / area, float((rows * mask).sum()) / area, area


@cache
def _proportions(shape: str) -> tuple[float, float, float]:
    """Measure the shape drawn with radius 1: its centre of gravity's offset (x, y), and its
    area."""
    middle, radius = 128.0, 100.0
    mask = np.asarray(draw_mask(shape, middle, middle, radius, size=256)) / 255
    x, y, area = _centre_and_area(mask)
    return (x - middle) / radius, (y - middle) / radius, area / radius**2


def _overlap(mask: Pixels, shape: str) -> float:
    """Compute intersection over union of the mask and the shape, drawn of the same area and
    centre."""
    x, y, area = _centre_and_area(mask)
    offset_x, offset_y, unit_area = _proportions(shape)
    radius = float(np.sqrt(area / unit_area))
    drawn = draw_mask(shape, x - offset_x * radius, y - offset_y * radius, radius, len(mask))
    other = np.asarray(drawn) / 255
    return float(np.minimum(mask, other).sum() / np.maximum(mask, other).sum())


def _shape(mask: Pixels) -> str:
    overlaps = {shape: _overlap(mask, shape) for shape in SHAPES}
    best = max(overlaps, key=overlaps.__getitem__)
    return best if overlaps[best] >= _LEAST_OVERLAP else UNCLEAR


def judge(image: Image.Image) -> Verdict:
    """Judge a picture of any size; it is brought to 64 x 64 first."""
    pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE)), np.float64)
    background: Pixels = np.median(_border(pixels), axis=0)
    background_name = _nearest(background, BACKGROUNDS)
    foreground = _foreground_colour(pixels, background)
    if foreground is None:
        return Verdict(UNCLEAR, UNCLEAR, background_name)
    shape = _shape(_coverage(pixels, background, foreground))
    return Verdict(shape, _nearest(foreground, COLOURS), background_name)


@dataclass(frozen=True)
class Score:
    """A score holds the shares of pictures, 0 to 1, in which each attribute is right, and all
    three."""

    shape: float
    colour: float
    background: float
    joint: float

    def __str__(self) -> str:
        return (
            f"shape {self.shape:6.1%}  colour {self.colour:6.1%}  "
            f"background {self.background:6.1%}  all three {self.joint:6.1%}"
        )


def score(images: Iterable[Image.Image], scenes: Sequence[Scene]) -> Score:
    """Judge each picture by the scene it should show."""
    right = []
    for image, scene in zip(images, scenes, strict=True):
        seen = judge(image)
        pairs = zip(
            (seen.shape, seen.colour, seen.background),
            (scene.shape, scene.colour, scene.background),
            strict=True,
        )
        right.append([found == asked for found, asked in pairs])
    table = np.array(right)
    shape, colour, background = (float(share) for share in table.mean(0))
    return Score(shape, colour, background, float(table.all(1).mean()))


def score_on_drawings(count: int, seed: int = HELD_OUT_SEED) -> Score:
    """Measure the judge on drawings that show what they should."""
    rng = np.random.default_rng(seed)
    pictures, scenes = zip(*(random_drawing(rng) for _ in range(count)), strict=True)
    return score(pictures, scenes)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--drawings", type=int, default=2000, help="held-out drawings to measure the judge on")
    add("--framework", choices=("torch", "mindspore"), help="generate pictures with this")
    add("--checkpoint", type=Path, default=Path(__file__).resolve().parent / "checkpoint")
    add("--guidance", type=float, nargs="+", default=[1.0, 2.0, 4.0, 7.0])
    add("--prompts", type=int, default=200)
    add("--steps", type=int, default=25, help="DDIM steps")
    add("--seed", type=int, default=HELD_OUT_SEED, help="of drawings, prompts and latents")
    return parser.parse_args()


def main() -> None:
    options = _parse()
    print(
        f"judge on {options.drawings} drawings: {score_on_drawings(options.drawings, options.seed)}"
    )
    if options.framework is None:
        return
    # Only here, for the judge itself needs no framework.
    from generate import generate, load_pipeline, random_requests

    pipeline = load_pipeline(options.framework, options.checkpoint)
    scenes, latents = random_requests(options.prompts, options.seed)
    for guidance in options.guidance:
        images = generate(pipeline, [s.caption for s in scenes], latents, guidance, options.steps)
        print(f"{options.framework}, guidance {guidance:g}: {score(images, scenes)}", flush=True)


if __name__ == "__main__":
    main()
