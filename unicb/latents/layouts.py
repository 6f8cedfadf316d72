"""Describe, as data, where in a latent tensor each cell of the picture is."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unicb.errors import UnsupportedPipelineError
from unicb.pipelines import PipelineFacts

_LETTERS = "bnthwcpq"
_AXIS = re.compile(r"\(([a-z+]+)\)|([a-z]\+?)")


@dataclass(frozen=True)
class Layout:
    """A layout lists the axes of a latent tensor in order, one letter each; letters in parentheses
    share one axis.

    The letters are ``b`` rows of the batch, ``n`` items of a row (the last is shown), ``t`` frames,
    ``h`` and ``w`` cells of the picture, ``c`` channels, ``p`` and ``q`` rows and columns of the
    p x p cells that are one token. In parentheses, the last letter runs fastest. A ``+`` means that
    more follows on that axis which is not shown: channels of a condition, tokens of other pictures.

    ======================  ============================================================
    ``bchw``                Stable Diffusion, and most
    ``bcthw``               most video
    ``btchw``               video, frames before channels: CogVideoX, SVD
    ``bthwc+``              Kandinsky 5, channels last
    ``bncthw``              JoyImage: reference pictures, then the picture
    ``b(cpq)hw``            2x2 cells as channels: ERNIE-Image
    ``b(hw)(cpq)``          tokens of 2x2 cells: Flux, Flux 2, Qwen-Image
    ``b(hw)(pqc)``          tokens of 2x2 cells, channels fastest: Ideogram 4
    ``b(thw)(cpq)``         tokens of all frames: LTX
    ``b(thw+)(cpq)``        the same, with tokens of other pictures after them
    ======================  ============================================================

    The size p of tokens follows from the number of channels and the length of their axis. Tokens of
    one cell (p = 1) are written in the same way.

    Args:
        notation: the axes, as in the table.

    Raises:
        ValueError: ``notation`` is no such list of axes.
    """

    notation: str

    def __post_init__(self) -> None:
        letters = [x for axis in self.axes for x in axis if x != "+"]
        whole = "".join(f"({axis})" if len(axis.strip("+")) > 1 else axis for axis in self.axes)
        needed = {"b", "c", "h", "w"}
        grid = any("h" in axis and "w" in axis for axis in self.axes)
        bad = (
            whole != self.notation
            or len(set(letters)) != len(letters)
            or not needed <= set(letters) <= set(_LETTERS)
            or ("p" in letters) != ("q" in letters)
            or self.axes[0] != "b"
            or any(letters.index(a) > letters.index(b) for a, b in ("hw", "pq") if b in letters)
            or any(
                axis.strip("+") not in ("hw", "thw") for axis in self.axes if "h" in axis and grid
            )
            or ("t" in letters and letters.index("t") > letters.index("h"))
        )
        if bad:
            raise ValueError(f"{self.notation!r} is no layout of latents; see unicb.latents.Layout")

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """Return each axis's letters, with its ``+``."""
        return tuple(a or b for a, b in _AXIS.findall(self.notation))

    @cached_property
    def channel_axis(self) -> int:
        """Return the index of the axis that has the channels."""
        return next(i for i, axis in enumerate(self.axes) if "c" in axis)

    @cached_property
    def token_axis(self) -> int | None:
        """Return the index of the axis that has both height and width; None if each has its own
        axis."""
        return next((i for i, axis in enumerate(self.axes) if "hw" in axis), None)

    def lengths(
        self, shape: Sequence[int], channels: int, size: Sequence[int] | None = None
    ) -> dict[str, int]:
        """Return the length of each letter in a tensor of this shape.

        Args:
            shape: the latents' shape.
            channels: number of channels of the latent format.
            size: (height, width) or (frames, height, width) in cells. Needed for layouts that have
                them in one axis; only checked for the others.

        Raises:
            ValueError: the shape does not fit the layout, channels and size; the message has all of
                them.
        """
        found = self._measure(tuple(shape), channels, size)
        if found is None:
            given = "no size" if size is None else f"a size of {' x '.join(map(str, size))} cells"
            raise ValueError(
                f"latents of shape {tuple(shape)} do not fit the layout {self.notation!r} with "
                f"{channels} channels and {given}"
            )
        return found

    def _measure(
        self, shape: tuple[int, ...], channels: int, size: Sequence[int] | None
    ) -> dict[str, int] | None:
        if len(shape) != len(self.axes):
            return None
        edge = self._edge(shape[self.channel_axis], channels)
        if edge is None or (size is not None and len(size) not in (2, 3)):
            return None
        grid = None if size is None else (*size[:-2], size[-2] // edge, size[-1] // edge)
        found = {axis: n for axis, n in zip(self.axes, shape, strict=True) if len(axis) == 1}
        found.update(c=channels, p=edge, q=edge)
        if self.token_axis is not None:
            tokens = self._tokens(shape[self.token_axis], grid)
            if tokens is None:
                return None
            found.update(tokens)
        elif grid is not None and grid[-2:] != (found["h"], found["w"]):
            return None
        return found if min(found.values()) > 0 else None

    def _edge(self, length: int, channels: int) -> int | None:
        """Return p for tokens of p x p cells; None if the length fits no p."""
        axis = self.axes[self.channel_axis]
        if "p" not in axis:
            fits = length >= channels if "+" in axis else length == channels
            return 1 if fits else None
        edge = math.isqrt(length // channels)
        return edge if edge and edge * edge * channels == length else None

    def _tokens(self, length: int, grid: tuple[int, ...] | None) -> dict[str, int] | None:
        """Return frames, height and width of the tokens' grid."""
        if grid is None:
            return None
        assert self.token_axis is not None
        axis = self.axes[self.token_axis]
        found = {"h": grid[-2], "w": grid[-1]}
        if "+" in axis and "t" in axis and len(grid) == 2:
            return None
        if "t" in axis:
            found["t"] = grid[0] if len(grid) == 3 else length // max(1, grid[0] * grid[1])
        whole = math.prod(found.values())
        return found if whole == length or ("+" in axis and whole < length) else None


def layout_of(pipeline: Any, facts: PipelineFacts | None) -> Layout:
    """Return the layout of a pipeline's latents; the usual one for an unknown class.

    Raises:
        UnsupportedPipelineError: the latents are no picture and no video.
    """
    if facts is not None and not facts.layout:
        raise UnsupportedPipelineError(
            f"no preview for {type(pipeline).__name__}: what it calls latents is not one picture "
            "or video in each row"
        )
    return Layout("bchw" if facts is None else facts.layout)


def size_of_latents(
    pipeline: Any, facts: PipelineFacts, local_names: Mapping[str, Any]
) -> tuple[int, ...] | None:
    """Return the cells of a run's latents, as :meth:`Layout.lengths` takes them: (height, width),
    or with frames before them; None if the latents' shape shows them.

    Args:
        pipeline: the running pipeline.
        facts: the facts about its class.
        local_names: the running loop's local variables, by name.

    Raises:
        ValueError: the loop lacks a local variable, or the pipeline an attribute, that the facts
            name; the message names it.
    """
    if not facts.size_from:
        return None
    values = [local_names.get(name) for name in facts.size_from]
    divisor = _pixels_per_cell(pipeline, facts.pixels_per_cell)
    if divisor is None or any(value is None for value in values):
        raise ValueError(
            f"the size of a {type(pipeline).__name__}'s latents is not where it should be: in the "
            f"loop's {', '.join(facts.size_from)}, divided by the pipeline's "
            f"{facts.pixels_per_cell or 'nothing'}"
        )
    whole = [int(value) for value in values if value is not None]
    cells = [value // divisor for value in whole]
    if facts.frames_per_cell:  # the first frame is a latent frame of its own
        cells[0] = (whole[0] - 1) // int(getattr(pipeline, facts.frames_per_cell)) + 1
    return tuple(cells)


def _pixels_per_cell(pipeline: Any, how: str) -> int | None:
    if not how:
        return 1
    name, _, divided_by = how.partition("/")
    value = getattr(pipeline, name, None)
    return None if not value else int(value) // int(divided_by or 1)
