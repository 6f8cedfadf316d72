"""Choose which of a batch's pictures to show, how large, and put them side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, TypeVar

from PIL import Image

from unicb.checks import one_of, whole_number

#: A size in pixels: of the longer side, or (width, height).
Size: TypeAlias = int | tuple[int, int]

#: Which pictures to show: all, the first, the one with an index, or all in one grid.
Batch: TypeAlias = Literal["all", "first", "grid"] | int

_T = TypeVar("_T")
_WORDS = ("all", "first", "grid")
_GAP = 2


def shape_images(
    images: Sequence[Image.Image], size: Size | None = None, batch: Batch = "all"
) -> list[Image.Image]:
    """Return the pictures of a batch that are to be shown, resized.

    Previews have one pixel for each latent cell. They are resized by bicubic interpolation, since a
    cell is a sample of a smooth picture: nearest neighbours would show the edges of squares that
    the picture does not have. To make a preview smaller, pillow's bicubic filter averages cells,
    where nearest neighbours would leave some out.

    Args:
        images: RGB pictures, at least one.
        size: size of each picture in pixels, from 1: the length of the longer side, keeping the
            proportions; or exactly (width, height). None: unchanged. In a grid, each cell has this
            size.
        batch: ``"all"``, ``"first"``, an index from 0, or ``"grid"``: all in one picture.

    Raises:
        TypeError, ValueError: as from :func:`check_size` and :func:`check_batch`.
        IndexError: the batch has no picture with this index.
    """
    size, batch = check_size(size), check_batch(batch)
    chosen = [_resized(image, size) for image in _choose(images, batch)]
    return [grid(chosen, gap=_GAP)] if batch == "grid" else chosen


def shape_videos(
    videos: Sequence[Sequence[Image.Image]], size: Size | None = None, batch: Batch = "all"
) -> list[list[Image.Image]]:
    """Return the videos of a batch that are to be shown, each frame resized as by
    :func:`shape_images`.

    Args:
        videos: for each row of the batch, the list of its frames in order, RGB pictures; at least
            one video.
        size: of each frame, as for :func:`shape_images`.
        batch: ``"all"``, ``"first"``, an index from 0, or ``"grid"``: all in one video, whose
            frames show all videos side by side at one moment.

    Raises:
        TypeError, ValueError: as from :func:`check_size` and :func:`check_batch`.
        ValueError: a grid of no videos, or of videos of different lengths.
        IndexError: the batch has no video with this index.
    """
    size, batch = check_size(size), check_batch(batch)
    shaped = [[_resized(image, size) for image in video] for video in _choose(videos, batch)]
    if batch != "grid":
        return shaped
    lengths = [len(video) for video in shaped]
    if len(set(lengths)) != 1:
        raise ValueError(
            f"a grid needs at least one video, and videos of one length; these have {lengths} "
            "frames"
        )
    return [[grid(moment, gap=_GAP) for moment in zip(*shaped, strict=True)]]


def check_size(size: Size | None) -> Size | None:
    """Return ``size``, if it is a valid size.

    Raises:
        TypeError: ``size`` is neither an int nor a pair of ints.
        ValueError: ``size`` is below 1.
    """
    if size is None:
        return None
    if isinstance(size, Sequence) and not isinstance(size, str | bytes):
        if len(size) != 2:
            raise TypeError(f"size must be an int or (width, height), not {size!r}")
        return whole_number("width", size[0]), whole_number("height", size[1])
    if isinstance(size, str | float):
        raise TypeError(
            f"size must be the longer side in pixels, an int, or (width, height), not {size!r}"
        )
    return whole_number("size", size)


def check_batch(batch: Batch) -> Batch:
    """Return ``batch``, if it is a word or an index. Whether the batch has that index is checked
    later.

    Raises:
        TypeError: ``batch`` is neither a string nor an int.
        ValueError: ``batch`` is an unknown word, or negative.
    """
    if isinstance(batch, str):
        return one_of("batch", batch, _WORDS, "an index")
    return whole_number("batch", batch, least=0)


def grid(
    images: Sequence[Image.Image],
    columns: int | None = None,
    *,
    gap: int = 0,
    background: str = "black",
) -> Image.Image:
    """Put all pictures into one grid, row by row from the top left, in cells of the largest
    picture's size.

    Args:
        images: RGB pictures, at least one.
        columns: number of columns, from 1; None: about as many as rows.
        gap: pixels between two cells, from 0.
        background: a colour, by pillow's name, for space without a picture.

    Raises:
        ValueError: there are no pictures, ``columns`` is below 1, or ``gap`` is below 0.
        TypeError: ``columns`` or ``gap`` is no int.
    """
    if not images:
        raise ValueError("a grid needs at least one picture")
    if columns is None:
        columns = math.isqrt(len(images) - 1) + 1
    columns = min(whole_number("columns", columns), len(images))
    rows = -(-len(images) // columns)
    width = max(image.width for image in images) + whole_number("gap", gap, least=0)
    height = max(image.height for image in images) + gap
    canvas = Image.new("RGB", (columns * width - gap, rows * height - gap), background)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        canvas.paste(image, (column * width, row * height))
    return canvas


def _choose(images: Sequence[_T], batch: Batch) -> Sequence[_T]:
    if batch in ("all", "grid"):
        return images
    index = 0 if isinstance(batch, str) else batch
    if index >= len(images):
        raise IndexError(f"batch={batch!r}: there is no such picture among {len(images)}")
    return [images[index]]


def _resized(image: Image.Image, size: Size | None) -> Image.Image:
    if isinstance(size, int):
        scale = size / max(image.size)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if size is None or size == image.size:
        return image
    return image.resize(size, Image.Resampling.BICUBIC)
