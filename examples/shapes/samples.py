"""Draw samples.png: prompts from left to right, guidance from top to bottom."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from drawings import SIZE, Scene
from generate import generate, load_pipeline
from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
SCENES = (
    Scene("circle", "red", "blue"),
    Scene("star", "yellow", "black"),
    Scene("square", "green", "white"),
    Scene("ring", "white", "red"),
    Scene("triangle", "purple", "yellow"),
    Scene("cross", "blue", "green"),
    Scene("star", "white", "blue"),
    Scene("ring", "purple", "black"),
)
_GAP = 4
_ZOOM = 2


def sheet(rows: Sequence[Sequence[Image.Image]], labels: Sequence[str]) -> Image.Image:
    """Put rows of pictures, twice their size, on a sheet, with a label at the left of each row."""
    cell, margin = SIZE * _ZOOM + _GAP, 90
    canvas = Image.new("RGB", (margin + cell * len(rows[0]), _GAP + cell * len(rows)), "white")
    pen = ImageDraw.Draw(canvas)
    for y, (row, label) in enumerate(zip(rows, labels, strict=True)):
        pen.text((8, _GAP + cell * y + cell // 2 - 8), label, fill="black", font_size=14)
        for x, picture in enumerate(row):
            large = picture.resize((SIZE * _ZOOM, SIZE * _ZOOM), Image.Resampling.NEAREST)
            canvas.paste(large, (margin + cell * x, _GAP + cell * y))
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--framework", choices=("torch", "mindspore"), default="torch")
    parser.add_argument("--checkpoint", type=Path, default=HERE / "checkpoint")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0, 4.0, 7.0])
    parser.add_argument("--out", type=Path, default=HERE / "samples.png")
    options = parser.parse_args()
    pipeline = load_pipeline(options.framework, options.checkpoint)
    shape = (len(SCENES), 4, 16, 16)
    latents = np.random.default_rng(7).standard_normal(shape, np.float32)
    captions = [scene.caption for scene in SCENES]
    rows = [generate(pipeline, captions, latents, guidance) for guidance in options.guidance]
    sheet(rows, [f"guidance {g:g}" for g in options.guidance]).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
