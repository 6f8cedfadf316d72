"""Unpack latents of any layout as a VAE takes them, on their device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from unicb.latents.layouts import Layout
from unicb.latents.shown import shown_part
from unicb.ops import Tensor

#: What a VAE takes, and items of a row and cells of a token before they are in their places.
_ORDER = "bncthpwq"


class Unpacked(NamedTuple):
    """``Unpacked`` holds a part of the latents.

    Attributes:
        tensor: ``[rows, channels, frames, height, width]``.
        start: which of the latent frames is the first of these.
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
    """Return what is shown of the latents, by slicing and moving axes alone.

    Args:
        latents: of that layout.
        layout: where they are.
        channels: of one cell.
        size: cells, where the layout has them in one axis; see ``size_of_latents``.
        middle: one frame of a video alone.
        first_frame: those before it are left out, if there are more.

    Raises:
        ValueError: the latents do not fit the layout, the channels or the size (names all).
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
