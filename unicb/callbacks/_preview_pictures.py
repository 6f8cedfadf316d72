"""Make the pictures of a run's steps: by a map of their latents to colours, or by a decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from unicb.latents import ColourMap, Frames, size_of_latents
from unicb.latents.denoised import LazyDenoised
from unicb.latents.rgb import as_shown
from unicb.latents.shown import ShownPart
from unicb.ops import Tensor, TensorOps
from unicb.pipelines import PipelineFacts
from unicb.step import Step, timestep_number

if TYPE_CHECKING:
    from unicb.latents.decoders import PictureDecoder


class Painter(NamedTuple):
    """A painter makes pictures of a pipeline's latents: it has a colour map or a decoder."""

    colours: ColourMap | None
    decoder: PictureDecoder | None
    facts: PipelineFacts | None


class Pixels(NamedTuple):
    """``Pixels`` holds a step's pictures on the host.

    Attributes:
        pixels: ``numpy.uint8``, ``[rows, height, width, 3]``, or for an animation ``[rows,
            frames, height, width, 3]``.
        finite: whether the latents were.
        denoised: whether these are of the denoised latents.
        timestep: the scheduler's.
    """

    pixels: npt.NDArray[np.uint8]
    finite: bool
    denoised: bool
    timestep: float


class StepPictures:
    """``StepPictures`` makes the pictures of each step of one run.

    Args:
        painter: of the run's pipeline.
        frames: what is shown of a video.
    """

    def __init__(self, painter: Painter, frames: Frames) -> None:
        self._colours, self._decoder, self._facts = painter
        self._frames = frames
        #: Of the latents, and their size where that does not follow from it.
        self._shape: tuple[int, ...] | None = None
        self._size: tuple[int, ...] | None = None
        #: What is shown of latents of that shape.
        self._part: ShownPart | None = None

    def of(self, step: Step, lazy: LazyDenoised | None) -> Callable[[], Pixels]:
        """Begin the pictures of a step: of its denoised latents where these can be computed, or of
        the latents. Returns a function that waits for them, and does not keep the step."""
        latents, shape = step["latents"], tuple(step["latents"].shape)
        if self._shape != shape:
            self._shape, self._size, self._part = shape, _size(step, self._facts), None
        if self._decoder is not None:
            return _decoded(step, self._decoder, latents, lazy, self._size, self._frames)
        assert self._colours is not None
        if self._part is None:
            self._part = self._colours.part(shape, self._size, self._frames)
        return _mapped(step, self._colours, self._part, self._frames, lazy)


def _mapped(
    step: Step, colours: ColourMap, part: ShownPart, frames: Frames, lazy: LazyDenoised | None
) -> Callable[[], Pixels]:
    """Make pictures by the linear map. No more of each tensor is kept for them than they show."""
    compute = None if lazy is None else lazy.compute
    parts = [part.of(x) for x in (step["latents"], *(() if lazy is None else lazy.tensors))]
    levels = None if lazy is None else lazy.levels
    is_linear = lazy is None or lazy.is_linear
    unread = () if levels is None else levels.unread()
    timestep = step.raw_timestep
    # All that is the framework's goes through aside(), and nothing else of it is asked elsewhere.
    rest = (*unread, *((timestep,) if step.run.is_tensor(timestep) else ()))

    def work(
        ops: TensorOps, latents: Tensor, *more: Tensor
    ) -> tuple[npt.NDArray[np.uint8], bool, float]:
        others, more = more[: len(parts) - 1], more[len(parts) - 1 :]
        if levels is not None and unread:
            levels.read(ops, more[: len(unread)])
        if compute is None:
            denoised = None
        elif is_linear:
            denoised = colours.planes_of(others, compute, part, ops)
        else:
            x0 = compute(*others)
            denoised = None if x0 is None else colours.planes(x0, part, ops)
        planes = colours.planes(latents, part, ops) if denoised is None else denoised
        number = timestep_number(more[-1] if len(rest) > len(unread) else timestep, ops)
        return planes, denoised is not None, number

    result = step.aside(work, *parts, *rest)

    def pixels() -> Pixels:
        planes, denoised, timestep = result()
        return Pixels(*colours.arrange(planes, part, frames), denoised, timestep)

    return pixels


def _decoded(
    step: Step,
    decoder: PictureDecoder,
    latents: Tensor,
    lazy: LazyDenoised | None,
    size: Sequence[int] | None,
    frames: Frames,
) -> Callable[[], Pixels]:
    """Make pictures by a decoder, here and now: it may be the pipeline's own, and may draw
    numbers."""
    x0 = None if lazy is None else lazy.compute(*lazy.tensors)
    decoded = decoder.decode(latents if x0 is None else x0, size, frames)
    timestep = step.raw_timestep
    # As in _mapped: what is the framework's goes through aside() and nowhere else.
    pictures = () if decoded.tensor is None else (decoded.tensor,)
    rest = (timestep,) if step.run.is_tensor(timestep) else ()

    def work(ops: TensorOps, *tensors: Tensor) -> tuple[npt.NDArray[np.uint8], float]:
        made = ops.to_uint8(tensors[0]) if decoded.images is None else decoded.images
        return made, timestep_number(tensors[-1] if rest else timestep, ops)

    result = step.aside(work, *pictures, *rest)
    arrange = decoded.arrange

    def pixels() -> Pixels:
        made, timestep = result()
        return Pixels(as_shown(arrange(made), frames), True, x0 is not None, timestep)

    return pixels


def _size(step: Step, facts: PipelineFacts | None) -> tuple[int, ...] | None:
    """Return how many cells the latents have, where their shape does not tell; else None."""
    if facts is None or not facts.size_from:
        return None
    return size_of_latents(step.pipeline, facts, step.run.loop_locals(facts.size_from))
