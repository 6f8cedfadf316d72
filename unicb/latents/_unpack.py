"""Latents of any layout as a VAE takes them, on their device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from unicb.latents.layouts import Layout
from unicb.ops import Tensor

#: What a VAE takes, and items of a row and cells of a token before they are in their places.
_ORDER = "bncthpwq"


class Unpacked(NamedTuple):
    """Part of the latents.

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
    """What is shown of the latents, by slicing and moving axes alone.

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
    lengths = layout.lengths(latents.shape, channels, size)
    start, stop = _frames(lengths.get("t", 1), middle, first_frame)
    parts: list[slice] = []
    for axis, length in zip(layout.axes, latents.shape, strict=True):
        if axis == "n":
            parts.append(slice(length - 1, length))
        elif "c" in axis:
            parts.append(slice(0, _numbers(axis, lengths)))
        elif axis == "t":
            parts.append(slice(start, stop))
        elif "hw" in axis:
            parts.append(_tokens(axis, length, lengths, start, stop))
        else:
            parts.append(slice(0, length))
    whole = all((s.start, s.stop) == (0, n) for s, n in zip(parts, latents.shape, strict=True))
    shown = latents if whole else latents[tuple(parts)]
    lengths.update({letter: 1 for letter in "n" if letter in lengths}, t=stop - start)
    return Unpacked(_in_places(shown, layout, lengths), start)


def _frames(count: int, middle: bool, first: int) -> tuple[int, int]:
    first = first if first < count else 0
    if not middle:
        return first, count
    chosen = first + (count - first) // 2
    return chosen, chosen + 1


def _numbers(axis: str, lengths: dict[str, int]) -> int:
    return math.prod(lengths[letter] for letter in axis if letter in "cpq")


def _tokens(axis: str, length: int, lengths: dict[str, int], start: int, stop: int) -> slice:
    """Those of a range of frames, of an axis that may have others before or behind."""
    frame = lengths["h"] * lengths["w"]
    before = length - frame * lengths.get("t", 1) if axis.startswith("+") else 0
    if "t" not in axis:
        return slice(before, before + frame)
    return slice(before + frame * start, before + frame * stop)


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
            lengths["t"],
            lengths["h"] * edge,
            lengths["w"] * edge,
        )
    )
