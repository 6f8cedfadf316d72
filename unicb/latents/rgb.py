"""Turn latents into colours, with one small transfer from the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from unicb.checks import one_of
from unicb.latents.formats import LatentFormat
from unicb.latents.layouts import Layout
from unicb.latents.shown import ShownPart, shown_part
from unicb.ops import Tensor, TensorOps

#: Which of a video's latent frames to show: the middle one, all side by side, or all one after the
#: other.
Frames: TypeAlias = Literal["middle", "strip", "animation"]


class RGBArray(NamedTuple):
    """``RGBArray`` holds the colours of a batch of latents, on the host.

    Attributes:
        pixels: ``numpy.uint8`` ``[batch, height, width, 3]``, or with ``frames="animation"``
            ``[batch, frames, height, width, 3]``; black where the latents are not finite.
        finite: True if all of the latents that are shown are finite.
    """

    pixels: npt.NDArray[np.uint8]
    finite: bool


class ColourMap:
    """A colour map turns latents of one format, in any layout, into colours.

    The device does one matrix product, on the part that is shown; a token of p x p cells is
    multiplied by a block matrix that gives the colours of all of its cells at once. The host then
    puts the cells in their places, with one byte for each colour of each cell. The matrix is made
    once for each device and dtype, and kept.

    Args:
        form: the latents' format.
        layout: the latents' layout, as a :class:`Layout` or its notation.
    """

    def __init__(self, form: LatentFormat, layout: Layout | str = "bchw") -> None:
        self.form = form
        self.layout = Layout(layout) if isinstance(layout, str) else layout
        self._kept: dict[Any, tuple[Tensor, Tensor]] = {}

    def rgb(
        self,
        latents: Tensor,
        ops: TensorOps,
        size: Sequence[int] | None = None,
        frames: Frames = "middle",
    ) -> RGBArray:
        """Return the colours of latents of this layout, of any floating dtype: :meth:`part`,
        :meth:`planes` and :meth:`arrange` in one.

        Args:
            latents: a tensor of this layout.
            ops: the tensor operations of its framework.
            size, frames: as for :meth:`part`.

        Raises:
            ValueError: as from :meth:`part`.
        """
        part = self.part(latents.shape, size, frames)
        return self.arrange(self.planes(part.of(latents), part, ops), part, frames)

    def part(
        self, shape: Sequence[int], size: Sequence[int] | None = None, frames: Frames = "middle"
    ) -> ShownPart:
        """Return the part to show of latents with this shape.

        Args:
            shape: the latents' shape.
            size: (height, width) or (frames, height, width) in cells, if the layout has them in one
                axis; see :func:`unicb.latents.size_of_latents`.
            frames: for videos: "middle" shows one latent frame, "strip" all side by side,
                "animation" all one after the other.

        Raises:
            ValueError: the shape does not fit the layout, the format or the size (the message has
                all of them), or ``frames`` is none of the three words.
        """
        one_of("frames", frames, get_args(Frames))
        channels = self.form.latent_channels
        return shown_part(self.layout, shape, channels, size, middle=frames == "middle")

    def planes(self, shown: Tensor, part: ShownPart, ops: TensorOps) -> npt.NDArray[np.uint8]:
        """Compute the colours of a part on the device, and fetch them for :meth:`arrange`."""
        colours = self._product(shown, part.lengths["p"], ops)
        return self._bytes(colours, shown, part, ops)

    def planes_of(
        self,
        parts: Sequence[Tensor],
        combine: Callable[..., Tensor | None],
        part: ShownPart,
        ops: TensorOps,
    ) -> npt.NDArray[np.uint8] | None:
        """Do as :meth:`planes` with the tensor ``combine(*parts)``; None if ``combine`` returns
        None.

        Args:
            combine: a function of tensors of one shape that is linear in them, without a constant.
        """
        edge = part.lengths["p"]
        if _is_half(parts[0]):  # combine before the product: that loses the least to rounding
            combined = combine(*parts)
            parts, combine = (combined,), _itself
            if combined is None:
                return None
        # Combine after the product: there are fewer colours than channels.
        colours = combine(*(self._product(each, edge, ops) for each in parts))
        return None if colours is None else self._bytes(colours, parts[0], part, ops)

    def _bytes(
        self, colours: Tensor, like: Tensor, part: ShownPart, ops: TensorOps
    ) -> npt.NDArray[np.uint8]:
        return ops.to_uint8(colours + self._weights_like(like, part.lengths["p"], ops)[1])

    def arrange(
        self, planes: npt.NDArray[np.uint8], part: ShownPart, frames: Frames = "middle"
    ) -> RGBArray:
        """Put every cell in its place, and the frames side by side or one after the other."""
        pixels, finite = self._arrange(planes, part.lengths)
        return RGBArray(np.ascontiguousarray(as_shown(pixels, frames)), finite)

    def _product(self, shown: Tensor, edge: int, ops: TensorOps) -> Tensor:
        """Compute, in 0..255 and without the bias, the colours of each token's cells and whether
        the token is finite.

        The result is ``[rows, tokens, 3 * edge * edge + 1]`` if the channels are on the last axis,
        and ``[rows, 3 * edge * edge + 1, tokens]`` if other axes follow them.
        """
        shape, axis = tuple(shown.shape), self.layout.channel_axis
        weights, _ = self._weights_like(shown, edge, ops)
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        if axis + 1 == len(shape):
            return ops.matmul(shown.reshape((1, before, shape[axis])), weights)
        return ops.matmul(weights, shown.reshape((before, shape[axis], after)))

    def _weights_like(self, like: Tensor, edge: int, ops: TensorOps) -> tuple[Tensor, Tensor]:
        # Tensors of some frameworks have no `device`; these frameworks have one place for all
        # tensors.
        key = (edge, like.dtype, str(getattr(like, "device", "")))
        if key not in self._kept:
            weights, bias = _weights(self.form, self.layout, edge)
            self._kept[key] = ops.from_numpy(weights, like), ops.from_numpy(bias, like)
        return self._kept[key]

    def _arrange(
        self, planes: npt.NDArray[np.uint8], lengths: dict[str, int]
    ) -> tuple[npt.NDArray[np.uint8], bool]:
        """Return the colours ``[batch, frames, height, width, 3]``, and whether all are finite."""
        axes, axis = self.layout.axes, self.layout.channel_axis
        if axis + 1 < len(axes):
            rows, count, tokens = planes.shape
            colours, valid = np.empty((rows, tokens, count - 1), np.uint8), planes[:, -1] > 0
            for index in range(count - 1):  # several times as fast as one copy of everything
                colours[..., index] = planes[:, index]
        else:
            colours, valid = planes[..., :-1], planes[..., -1] > 0
        finite = bool(valid.all())
        if not finite:
            colours = colours * valid[..., None]
        letters = "".join((*axes[:axis], *axes[axis + 1 :], "pq")).replace("+", "")
        edge = lengths["p"]
        cells = colours.reshape(*(lengths[x] for x in letters), 3)
        order = [letters.index(x) for x in "bnthpwq" if x in letters]
        pixels = cells.transpose(*order, len(letters))
        height, width = lengths["h"] * edge, lengths["w"] * edge
        return pixels.reshape(lengths["b"], lengths.get("t", 1), height, width, 3), finite


def _itself(x: Tensor) -> Tensor:
    return x


def _is_half(x: Tensor) -> bool:
    return "16" in str(x.dtype)


def as_shown(pixels: npt.NDArray[np.uint8], frames: Frames) -> npt.NDArray[np.uint8]:
    """Turn videos ``[batch, frames, height, width, 3]`` into pictures without the axis of frames:
    their only frame, or all frames side by side; for "animation", return them unchanged."""
    if frames == "middle":
        return pixels[:, 0]
    if frames == "strip":
        batch, count, height, width, _ = pixels.shape
        return pixels.swapaxes(1, 2).reshape(batch, height, count * width, 3)
    return pixels


def to_rgb(latents: Tensor, form: LatentFormat, ops: TensorOps) -> RGBArray:
    """Return the colours of latents ``[batch, channels, height, width]``, of any floating dtype.

    Raises:
        ValueError: the latents are not of this shape with the format's number of channels.
    """
    shape = tuple(latents.shape)
    if len(shape) != 4 or shape[1] != form.latent_channels:
        raise ValueError(
            f"latents of shape {shape} are not [batch, {form.latent_channels}, height, width] "
            f"as the format {form.name!r} has it"
        )
    return ColourMap(form).rgb(latents, ops)


def _weights(
    form: LatentFormat, layout: Layout, edge: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Make the matrix from a token's numbers to red, green, blue in 0..255 of each of its cells,
    with one more column that tells finite tokens from others.

    The additional column multiplies everything by 0 and adds 255. Finite numbers times 0 are 0; NaN
    and the infinities give NaN, which becomes 0. So the check needs no transfer of its own.

    If the channels are on the last axis, the matrix's columns are colours; otherwise its rows are.
    """
    low, high = form.output_range
    scale = 255.0 / (high - low)
    factors = np.asarray(form.factors, dtype=np.float64) * scale
    offsets = (np.asarray(form.bias, dtype=np.float64) - low) * scale
    # [c, p, q, p, q, rgb]: the colours of a cell depend on that cell's numbers only.
    same = np.eye(edge * edge).reshape((edge,) * 4)
    blocks = factors[:, None, None, None, None, :] * same[None, ..., None]
    letters = layout.axes[layout.channel_axis].strip("+")
    order = [("c", "p", "q").index(x) for x in letters] if "p" in letters else [0, 1, 2]
    matrix = blocks.transpose(*order, 3, 4, 5).reshape(-1, edge * edge * 3)
    matrix = np.concatenate([matrix, np.zeros((len(matrix), 1))], axis=1)
    bias = np.concatenate([np.tile(offsets, edge * edge), [255.0]])
    if layout.channel_axis + 1 == len(layout.axes):
        return matrix.astype(np.float32), bias.astype(np.float32)
    return matrix.T.astype(np.float32), bias[:, None].astype(np.float32)
