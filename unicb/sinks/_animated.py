"""Write pictures as one animated file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from unicb.sinks._save import format_of, save

# Animated formats. Pillow's formats with pages (TIFF, PDF, MPO) are no animations.
_PLAYED = ("WEBP", "GIF", "PNG")


def can_animate(path: Path) -> bool:
    """Return whether a file with this suffix can be an animation: ``.webp``, ``.gif``, ``.png``,
    ``.apng``.

    Raises:
        ValueError: pillow cannot write an RGB picture to a file with this suffix.
    """
    form = format_of(path)
    return form in _PLAYED and form in Image.SAVE_ALL


def save_animation(
    pictures: Sequence[Image.Image], path: Path, milliseconds: Sequence[int]
) -> None:
    """Write pictures as an animation that starts again at its end, as :func:`save` writes files.

    The animation has the size of the last picture, to which the others are resized. Pillow may
    merge equal neighbours into one frame that is shown for their total time, and write a still
    picture if all are equal.

    Args:
        pictures: RGB pictures, at least one.
        path: a path for which :func:`can_animate` is True.
        milliseconds: how long each picture is shown, in ms. GIF rounds down to tens of ms.

    Raises:
        OSError, ValueError: as from :func:`save`.
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
