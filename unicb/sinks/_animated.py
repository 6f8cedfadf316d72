"""Write pictures as one file that plays them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from unicb.sinks._save import format_of, save

# Formats that play. Those in which pillow has pages (TIFF, PDF, MPO) hold pictures side by side.
_PLAYED = ("WEBP", "GIF", "PNG")


def can_animate(path: Path) -> bool:
    """Return whether a file of this suffix can be an animation: ``.webp``, ``.gif``, ``.png``,
    ``.apng``.

    Raises:
        ValueError: pillow cannot write an RGB picture to a file of that suffix.
    """
    form = format_of(path)
    return form in _PLAYED and form in Image.SAVE_ALL


def save_animation(
    pictures: Sequence[Image.Image], path: Path, milliseconds: Sequence[int]
) -> None:
    """Write pictures as an animation that starts again at its end, as :func:`save` writes files.

    An animation has one size, which is that of the last picture; others are resized to it. Of
    neighbours that are alike, pillow may make one frame of their time together, and of pictures
    that are all alike a picture that does not move.

    Args:
        pictures: RGB, at least one.
        path: one that :func:`can_animate`.
        milliseconds: how long each is shown. GIF counts in tens, rounded down.

    Raises:
        OSError, ValueError: as :func:`save`.
        ValueError: there are no pictures.
    """
    if not pictures:
        raise ValueError("an animation needs at least one picture")
    size = pictures[-1].size
    first, *others = [
        picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)
        for picture in pictures
    ]
    save(first, path, save_all=True, append_images=others, duration=list(milliseconds), loop=0)
