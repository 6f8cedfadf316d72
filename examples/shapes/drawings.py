"""Draw the pictures that the shapes model learns from: a coloured shape on a plain ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]

SIZE = 64
"""Width and height of a picture, in pixels."""

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")

COLOURS: dict[str, RGB] = {
    "red": (220, 40, 40),
    "green": (40, 170, 70),
    "blue": (50, 80, 220),
    "yellow": (240, 210, 50),
    "purple": (150, 60, 190),
    "white": (245, 245, 245),
}

BACKGROUNDS: dict[str, RGB] = {
    "black": (15, 15, 15),
    "white": (245, 245, 245),
    "blue": (50, 80, 220),
    "green": (40, 170, 70),
    "red": (220, 40, 40),
    "yellow": (240, 210, 50),
}

# Drawn this much larger and then averaged down, so that edges are smooth.
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Scene:
    """A scene is what a picture shows: a key of `SHAPES`, of `COLOURS` and of `BACKGROUNDS`."""

    shape: str
    colour: str
    background: str

    @property
    def caption(self) -> str:
        return f"a {self.colour} {self.shape} on a {self.background} background"


def all_scenes() -> list[Scene]:
    """List every scene in which the shape differs from its background."""
    return [
        Scene(shape, colour, background)
        for shape in SHAPES
        for colour in COLOURS
        for background in BACKGROUNDS
        if colour != background
    ]


def random_scene(rng: np.random.Generator) -> Scene:
    scenes = all_scenes()
    return scenes[int(rng.integers(len(scenes)))]


def _box(x: float, y: float, half_width: float, half_height: float) -> list[float]:
    return [x - half_width, y - half_height, x + half_width, y + half_height]


def _star_points(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    reaches = np.where(np.arange(10) % 2 == 0, radius, radius * 0.42)
    return [
        (float(x + reach * np.cos(angle)), float(y + reach * np.sin(angle)))
        for angle, reach in zip(angles, reaches, strict=True)
    ]


def _paint(pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float) -> None:
    if shape == "circle":
        pen.ellipse(_box(x, y, radius, radius), fill=255)
    elif shape == "ring":
        pen.ellipse(_box(x, y, radius, radius), outline=255, width=round(radius * 0.35))
    elif shape == "square":
        pen.rectangle(_box(x, y, radius * 0.85, radius * 0.85), fill=255)
    elif shape == "triangle":
        foot = y + radius * 0.75
        pen.polygon([(x, y - radius), (x - radius * 0.9, foot), (x + radius * 0.9, foot)], fill=255)
    elif shape == "cross":
        pen.rectangle(_box(x, y, radius * 0.3, radius), fill=255)
        pen.rectangle(_box(x, y, radius, radius * 0.3), fill=255)
    elif shape == "star":
        pen.polygon(_star_points(x, y, radius), fill=255)
    else:
        raise ValueError(f"unknown shape {shape!r}; known are {', '.join(SHAPES)}")


def draw_mask(shape: str, x: float, y: float, radius: float, size: int = SIZE) -> Image.Image:
    """Draw a grey picture (mode L, size x size): 255 inside the shape, 0 outside, smooth at the
    edge.

    The centre (x, y) and the radius are in pixels.
    """
    k = _OVERSAMPLING
    mask = Image.new("L", (size * k, size * k), 0)
    _paint(ImageDraw.Draw(mask), shape, x * k, y * k, radius * k)
    return mask.reduce(k)


def draw(scene: Scene, x: float, y: float, radius: float, size: int = SIZE) -> Image.Image:
    """Draw an RGB picture (size x size) of the scene, its shape centred on (x, y)."""
    mask = draw_mask(scene.shape, x, y, radius, size)
    shape = Image.new("RGB", mask.size, COLOURS[scene.colour])
    return Image.composite(shape, Image.new("RGB", mask.size, BACKGROUNDS[scene.background]), mask)


def random_drawing(rng: np.random.Generator) -> tuple[Image.Image, Scene]:
    """Draw a random scene at a random place and size that keep it off the picture's border."""
    scene = random_scene(rng)
    x, y = rng.uniform(25, 39, 2)
    return draw(scene, float(x), float(y), float(rng.uniform(13, 21))), scene
