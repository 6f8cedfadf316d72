"""Unpack latents of any layout to the axes that a VAE takes, on their device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from unicb.latents.layouts import Layout
from unicb.latents.shown import shown_part
from unicb.ops import Tensor

#: Order of a layout's letters before a token's cells (p, q) join height and width.
_ORDER = "bncthpwq"


class Unpacked(NamedTuple):
    """``Unpacked`` holds the part of the latents that is shown.

    Attributes:
        tensor: ``[rows, channels, frames, height, width]``.
        start: index, from 0, of the first of these frames in the latents.
    """

    tensor: Tensor
    start: int


def unpack(
    latents: Tensor,
    layout: Layout,
    channels: int,
    size: Sequence[int] | None,
    *,
    middle: bool,
    first_frame: int = 0,
) -> Unpacked:
    """Return the part of the latents that is shown, using only slices and moves of axes.

    Args:
        latents: a tensor of that layout.
        layout: the layout of the latents.
        channels: number of channels of a cell.
        size: (height, width) or (frames, height, width) in cells, needed if the layout has them in
            one axis; see ``size_of_latents``.
        middle: True: only the middle frame of a video.
        first_frame: index of the first frame shown; frames before it are left out, unless there are
            no others.

    Raises:
        ValueError: the latents do not fit the layout, the channels or the size; the message has all
            of them.
    """
    part = shown_part(layout, latents.shape, channels, size, middle=middle, first_frame=first_frame)
    return Unpacked(_in_places(part.of(latents), layout, part.lengths), part.start)


def _in_places(shown: Tensor, layout: Layout, lengths: dict[str, int]) -> Tensor:
    letters = [letter for axis in layout.axes for letter in axis if letter != "+"]
    split = shown.reshape(tuple(lengths[letter] for letter in letters))
    wanted = [letter for letter in _ORDER if letter in letters]
    for place, letter in enumerate(wanted):
        found = letters.index(letter)
        if found != place:
            split = split.swapaxes(place, found)
            letters[place], letters[found] = letters[found], letters[place]
    edge = lengths["p"]
    return split.reshape(
        (
            lengths["b"],
            lengths["c"],
            lengths.get("t", 1),
            lengths["h"] * edge,
            lengths["w"] * edge,
        )
    )
