"""See the picture form."""

from __future__ import annotations

import os
import warnings
import weakref
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args
from weakref import WeakKeyDictionary

from PIL import Image

from unicb.callback import Callback
from unicb.latents import ColourMap, LatentFormat, find_format, layout_of, size_of_latents
from unicb.latents.denoised import DenoisedEstimate
from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts
from unicb.sinks import (
    Animation,
    Background,
    Batch,
    ContactSheet,
    FileSink,
    PreviewFrame,
    Sink,
    SinkLike,
    Size,
    Throttle,
    as_sink,
    check_batch,
    check_size,
    shape_images,
)
from unicb.step import Step

#: What to show: the picture that the model sees coming, or the latents as they are.
Source: TypeAlias = Literal["denoised", "noisy"]
#: Which of a video's latent frames: the one in the middle, or all side by side.
Frames: TypeAlias = Literal["middle", "strip"]


class _Bound(NamedTuple):
    colours: ColourMap
    facts: PipelineFacts | None


@dataclass
class _RunState:
    """What is known of a run under way; one Preview may serve several at a time.

    Attributes:
        run: which it is.
        estimate: tells the denoised latents; None before the first step, and where none can.
        cells: the latents' shape, and their size where that does not follow from it.
    """

    run: weakref.ref[Any]
    begun: bool = False
    failed: bool = False
    warned_not_finite: bool = False
    estimate: DenoisedEstimate | None = None
    cells: tuple[tuple[int, ...], tuple[int, ...] | None] | None = None


class Preview(Callback):
    """Show the latents as pictures while they are being denoised.

    The pictures are a linear map of the latents' channels to colours. From the second step on they
    are of the denoised latents, the picture that the model sees coming, where the scheduler lets
    it be told (docs/denoised.md); the first step and, elsewhere, all show the noise. The last shows
    the finished latents. With a scheduler of order 2, half steps are not shown.

    They never change the latents, and never cost the finished picture: whatever goes wrong with a
    preview is told in one warning, and previews are off for the rest of that run. Latents that are
    not finite are shown black, with one warning.

    Args:
        to: a path template such as ``"steps/{step:03d}.png"``, a callable that takes a
            :class:`PreviewFrame`, a list to collect them in, or a sink of :mod:`unicb.sinks`. A
            template may use ``{step}``, ``{image}`` (index in the batch) and ``{num_timesteps}``;
            folders are made, and in a batch a template without ``{image}`` gets ``-0``, ``-1``, …
            before its suffix. Files are written by a thread of their own, which a run waits for
            at its end, and which misses steps where the disk is too slow; a callable is called in
            the run's own thread. See :class:`unicb.sinks.Background`.
        every: show steps 0, ``every``, ``2 * every``, …, and the last.
        max_fps: at most so many a second; the last is shown whenever it comes.
        size: pixels, of the longer side or (width, height); None: one for each latent cell.
        batch: ``"all"`` pictures, the ``"first"``, the one of an index from 0, or a ``"grid"``.
        frames: of a video, the latent frame in the ``"middle"``, or a ``"strip"`` of all.
        source: ``"denoised"`` where it can be had, or ``"noisy"``.
        factors: a :class:`LatentFormat`, or a TOML file with one; without it, that of the
            checkpoint's ``preview.toml``, of the pipeline's class, or of its VAE.

    Raises:
        ValueError: the template has an unknown field or none for the step, or an argument is out
            of range.
        TypeError: ``to`` is none of these, or an argument is of a wrong type.
        OSError, ValueError: the file ``factors`` cannot be read, or holds no format.
        UnsupportedPipelineError: from ``bind``, where the format of the latents is not known, or
            they are no picture and no video.
    """

    tensors = ("latents",)

    def __init__(
        self,
        to: SinkLike,
        every: int = 1,
        *,
        max_fps: float | None = None,
        size: Size | None = None,
        batch: Batch = "all",
        frames: Frames = "middle",
        source: Source = "denoised",
        factors: LatentFormat | str | os.PathLike[str] | None = None,
    ) -> None:
        self._sink = _off_the_loop(as_sink(to))
        self._throttle = Throttle(every, max_fps)
        self._size, self._batch = check_size(size), check_batch(batch)
        self._frames = _one_of("frames", frames, get_args(Frames))
        self._denoises = _one_of("source", source, get_args(Source)) == "denoised"
        if factors is not None and not isinstance(factors, LatentFormat):
            factors = LatentFormat.load(factors)
        self._factors = factors
        self._bound: WeakKeyDictionary[Any, _Bound] = WeakKeyDictionary()
        self._runs: WeakKeyDictionary[Any, _RunState] = WeakKeyDictionary()

    def on_bind(self, pipeline: Any, facts: PipelineFacts | None) -> None:
        layout = layout_of(pipeline, facts)
        form = self._factors or find_format(pipeline, facts)
        self._bound[pipeline] = _Bound(ColourMap(form, layout), facts)

    def on_run_start(self) -> None:
        self._throttle.reset()

    def on_run_end(self) -> None:
        try:
            self._sink.close()
        except Exception as error:
            if any(state.failed for state in self._runs.values()):
                return  # and it was told
            _warn(f"the last previews may be missing: {type(error).__name__}: {error}")

    def on_step_end(self, step: Step) -> None:
        state = self._state(step)
        if state.failed:
            return
        try:
            self._show(step, state)
        except Exception as error:
            state.failed, state.estimate = True, None
            _warn(f"previews are off for the rest of this run: {type(error).__name__}: {error}")

    def _state(self, step: Step) -> _RunState:
        state = self._runs.get(step.pipeline)
        if state is None or state.run() is not step._run:
            state = self._runs[step.pipeline] = _RunState(weakref.ref(step._run))
        return state

    def _show(self, step: Step, state: _RunState) -> None:
        last = step.index + 1 == step.num_timesteps
        denoised = self._denoised(step, state)
        between = state.estimate is not None and not step.is_whole
        if (between and not last) or not self._throttle.shows(step.index, step.num_timesteps):
            return
        shown = step["latents"] if last or denoised is None else denoised
        estimate = state.estimate
        source = "noisy" if denoised is None or estimate is None else estimate.kind
        images = shape_images(self._pictures(step, state, shown), self._size, self._batch)
        self._sink(PreviewFrame(step.index, step.num_timesteps, step.timestep, images, source))

    def _denoised(self, step: Step, state: _RunState) -> Tensor | None:
        """The estimate; asked for at every step, since it compares the latents of two."""
        if not state.begun:
            state.begun = True
            state.estimate = _estimate(step) if self._denoises else None
        return None if state.estimate is None else state.estimate.step_end(step["latents"])

    def _pictures(self, step: Step, state: _RunState, latents: Tensor) -> list[Image.Image]:
        colours, facts = self._bound[step.pipeline]
        size = None
        if facts is not None and facts.size_from:
            shape = tuple(latents.shape)
            if state.cells is None or state.cells[0] != shape:
                names = step._run.loop_locals(facts.size_from)
                state.cells = shape, size_of_latents(step.pipeline, facts, names)
            size = state.cells[1]
        pixels, finite = colours.rgb(latents, step.ops, size, self._frames)
        if not finite and not state.warned_not_finite:
            state.warned_not_finite = True
            _warn(f"latents are not finite at step {step.index}; these are shown black")
        return [Image.fromarray(picture) for picture in pixels]


def _estimate(step: Step) -> DenoisedEstimate | None:
    scheduler = getattr(step.pipeline, "scheduler", None)
    if DenoisedEstimate.kind_of(scheduler) is None:
        return None
    return DenoisedEstimate(
        scheduler, step.ops, first_timestep=step.timestep, num_timesteps=step.num_timesteps
    )


def _off_the_loop(sink: Sink) -> Sink:
    """Encoding and writing files is no work for the run's own thread."""
    return Background(sink) if isinstance(sink, FileSink | Animation | ContactSheet) else sink


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, not {value!r}")
    return value


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)
