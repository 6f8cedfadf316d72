"""One picture of a whole run: its previews in a grid, each with its step number."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

TILE, MARGIN, LABEL = 112, 6, 18


def contact_sheet(pictures: Sequence[tuple[str, Image.Image]], columns: int = 7) -> Image.Image:
    """Put labelled RGB pictures of any size, scaled to one size, in rows of ``columns``.

    Raises:
        ValueError: there are no pictures.
    """
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    cell_width, cell_height = TILE + MARGIN, TILE + LABEL + MARGIN
    size = (columns * cell_width + MARGIN, rows * cell_height + MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    for index, (label, picture) in enumerate(pictures):
        left = MARGIN + index % columns * cell_width
        top = MARGIN + index // columns * cell_height
        sheet.paste(picture.resize((TILE, TILE), Image.Resampling.BICUBIC), (left, top))
        draw.text((left + 2, top + TILE + 1), label, fill="black", font=font)
    return sheet
