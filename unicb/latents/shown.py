"""Find the part of the latents that is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from unicb.latents.layouts import Layout
from unicb.ops import Tensor


class ShownPart(NamedTuple):
    """``ShownPart`` says which part of latents of one shape is shown.

    Attributes:
        slices: a slice for each axis; None if all of the latents are shown.
        lengths: length of each letter of the layout within the part.
        start: index, from 0, of the part's first frame in the latents.
    """

    slices: tuple[slice, ...] | None
    lengths: dict[str, int]
    start: int

    def of(self, latents: Tensor) -> Tensor:
        """Slice the part out of latents, or out of any tensor of their shape."""
        return latents if self.slices is None else latents[self.slices]


def shown_part(
    layout: Layout,
    shape: Sequence[int],
    channels: int,
    size: Sequence[int] | None,
    *,
    middle: bool,
    first_frame: int = 0,
) -> ShownPart:
    """Return the part to show of latents with this shape: the last item of each row, without tokens
    before or after the picture's, and without channels after the picture's.

    Args:
        layout: the layout of the latents.
        shape: the latents' shape.
        channels: number of channels of a cell.
        size: (height, width) or (frames, height, width) in cells, if the layout has them in one
            axis; see ``size_of_latents``.
        middle: True: only the middle frame of a video.
        first_frame: index of the first frame shown; frames before it are left out, unless there are
            no others.

    Raises:
        ValueError: the shape does not fit the layout, the channels or the size; the message has all
            of them.
    """
    lengths = layout.lengths(shape, channels, size)
    start, stop = _frames(lengths.get("t", 1), middle, first_frame)
    slices: list[slice] = []
    for axis, length in zip(layout.axes, shape, strict=True):
        if axis == "n":
            slices.append(slice(length - 1, length))
        elif "c" in axis:
            slices.append(slice(0, math.prod(lengths[x] for x in axis if x in "cpq")))
        elif axis == "t":
            slices.append(slice(start, stop))
        elif "hw" in axis:
            slices.append(_tokens(axis, length, lengths, start, stop))
        else:
            slices.append(slice(0, length))
    whole = all((s.start, s.stop) == (0, n) for s, n in zip(slices, shape, strict=True))
    lengths |= {letter: n for letter, n in (("n", 1), ("t", stop - start)) if letter in lengths}
    return ShownPart(None if whole else tuple(slices), lengths, start)


def _frames(count: int, middle: bool, first: int) -> tuple[int, int]:
    first = first if first < count else 0
    if not middle:
        return first, count
    chosen = first + (count - first) // 2
    return chosen, chosen + 1


def _tokens(axis: str, length: int, lengths: dict[str, int], start: int, stop: int) -> slice:
    """Return the slice of a range of frames, in an axis that may have other tokens before or after
    the picture's."""
    frame = lengths["h"] * lengths["w"]
    before = length - frame * lengths.get("t", 1) if axis.startswith("+") else 0
    if "t" not in axis:
        return slice(before, before + frame)
    return slice(before + frame * start, before + frame * stop)
