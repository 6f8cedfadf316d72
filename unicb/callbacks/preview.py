"""See the picture form."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from unicb.callback import Callback
from unicb.callbacks._numbers import Numbers
from unicb.callbacks._preview_colours import given_colours, painter_for
from unicb.callbacks._preview_pictures import Painter, StepPictures
from unicb.callbacks._preview_run import PreviewedRun, Shaped
from unicb.callbacks._ranks import written_by_other_rank
from unicb.checks import one_of
from unicb.errors import GenerationCancelled, UnsupportedPipelineError
from unicb.latents import Frames, LatentFormat
from unicb.latents.formats import named_format
from unicb.sinks import (
    Background,
    Batch,
    FileSink,
    SinkLike,
    Size,
    Throttle,
    check_batch,
    check_size,
    shape_images,
    shape_videos,
)
from unicb.sinks.failures import failure
from unicb.step import Step

if TYPE_CHECKING:
    from unicb import Run, Target
    from unicb.latents.decoders import Decoder
    from unicb.latents.fit import Fit

#: What to show: the picture that the model sees coming, or the latents as they are.
Source: TypeAlias = Literal["denoised", "noisy"]


class Preview(Callback):
    """Show the latents as pictures while they are being denoised.

    The pictures are a linear map of the latents' channels to colours. From the second step on they
    are of the denoised latents, the picture that the model sees coming, where the scheduler lets
    it be computed (docs/denoised.md); the first step and, elsewhere, all show the noise. The last
    shows the finished latents. With a scheduler of order 2, half steps are not shown.

    They never change the latents, and never cost the finished picture: whatever goes wrong with a
    preview is reported in one warning, and previews are off for the rest of that run. Latents that
    are not finite are shown black, with one warning.

    The run does not wait for them. Pictures are made, shown and written by a thread of their own,
    one step after the other, and all are there when the denoising is over. On CUDA the device
    works on them beside the run. (On MindSpore, the run waits until the colours have left the
    device.)

    Where several processes share the run (docs/devices.md), the first of them shows it; each does,
    with a ``{rank}`` in the template. A decoder is called in each, for it may be spread over them.
    Of processes with runs of their own, each needs a template of its own, such as one with
    ``{rank}``: what another writes already is refused, with a warning, and previews are off.

    Args:
        to: a path template such as ``"steps/{step:03d}.png"``, a callable that takes a
            :class:`PreviewFrame`, a list to collect them in, or a sink of :mod:`unicb.sinks`. None,
            in Jupyter: one display of the cell that is updated in place, as
            :class:`unicb.sinks.Notebook` makes it. A template may use ``{step}``, ``{image}``
            (index in the batch), ``{num_timesteps}``, ``{run}`` and ``{rank}``; folders are made,
            and in a batch a template without ``{image}`` gets ``-0``, ``-1``, … before its suffix.
            What is too slow for the run misses steps, the oldest of 16 that wait (a list misses
            none); see
            :class:`unicb.sinks.Background`.
        every: show steps 0, ``every``, ``2 * every``, …, and the last.
        max_fps: at most so many a second; the last is shown whenever it comes.
        size: pixels, of the longer side or (width, height); None: one for each latent cell.
        batch: ``"all"`` pictures, the ``"first"``, the one of an index from 0, or a ``"grid"``.
        frames: of a video, the latent frame in the ``"middle"``, a ``"strip"`` of all, or an
            ``"animation"``: see ``PreviewFrame.videos``. None: an animation in Jupyter's display,
            where it need not be decoded, and else the middle.
        source: ``"denoised"`` where it can be had, or ``"noisy"``.
        factors: a :class:`LatentFormat`, what :func:`unicb.latents.fit_rgb_factors` returns, a TOML
            file with a format, or the name of one, such as ``"sd15"`` or ``"flux"``. ``"fit"``:
            they are fitted to the pipeline's VAE by ``bind``, the first time, and kept
            beside the checkpoint or in the user's cache (docs/latents.md). Without it, those of the
            checkpoint's ``preview.toml``, of the pipeline's class, or of its VAE.
        decoder: in place of the linear map, ``"vae"`` for the pipeline's own; an AutoencoderTiny
            or another model of its framework with a ``decode`` for these latents; or a function.
            It runs in the run's thread; see :mod:`unicb.latents.decoders`.

    Raises:
        ValueError: the template has an unknown field or none for the step, or cannot hold an
            animation; an argument is out of range; both ``factors`` and ``decoder`` are given.
        TypeError: ``to`` is none of these, or None outside of Jupyter; or an argument is of a wrong
            type.
        OSError, ValueError: the file ``factors`` cannot be read, or holds no format; ``factors`` is
            a word that names none.
        UnsupportedPipelineError: from ``bind``, where the format of the latents is not known, they
            are no picture and no video, or the decoder is not for them; or with ``max_fps`` and a
            decoder, where several processes share its runs, and each has a clock of its own.

    Example:
        >>> frames = []
        >>> image = bind(pipe, Preview(frames.append, every=5))("a red star")[0]
        >>> [frame.step for frame in frames]
        [0, 5, 9]
        >>> image = bind(pipe, Preview("steps/{step:03d}.png"))("a red star")[0]
    """

    tensors = ("latents",)
    _of_one_rank = ("_sink", "_count")

    def __init__(
        self,
        to: SinkLike | None = None,
        every: int = 1,
        *,
        max_fps: float | None = None,
        size: Size | None = None,
        batch: Batch = "all",
        frames: Frames | None = None,
        source: Source = "denoised",
        factors: LatentFormat | Fit | str | os.PathLike[str] | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        self._sink = _beside_the_run(_here(size) if to is None else to)
        sink: Any = self._sink.sink
        self.on_sigint = getattr(sink, "on_sigint", None)
        self.hides_progress_bar = getattr(sink, "hides_progress_bar", False)
        self._asks = bool(getattr(sink, "asks", False))
        self._every, self._max_fps = every, max_fps
        Throttle(every, max_fps)  # which says what is wrong with them
        self._count = Numbers()
        self._size, self._batch = check_size(size), check_batch(batch)
        if frames is None:
            own: Frames = getattr(sink, "video_frames", "middle")
            frames = own if decoder is None else "middle"
        self._frames = one_of("frames", frames, get_args(Frames))
        self._denoises = one_of("source", source, get_args(Source)) == "denoised"
        if self._frames == "animation":
            _check_animates(self._sink.sink)
        if factors is not None and decoder is not None:
            raise ValueError("Preview takes factors or a decoder, not both")
        if isinstance(decoder, str):
            one_of("decoder", decoder, ("vae",), "a model", "a function")
        self._factors, self._decoder = given_colours(factors), decoder
        self._by_name = isinstance(factors, str) and named_format(factors) is not None

    def on_bind(self, target: Target) -> None:
        if self._asks:
            target.check_interruptible()
        if target.is_shared and self._decoder is not None and self._max_fps is not None:
            raise UnsupportedPipelineError(
                "Preview with max_fps and a decoder goes by the clock of each of the processes "
                "that share this run, and the decoder is to be called by all of them or by none: "
                "take every= in place of max_fps=, or leave out the decoder"
            )
        self._painter(target)

    def _painter(self, target: Target) -> Painter:
        make = partial(painter_for, target, self._decoder, self._factors, self._by_name)
        return target.state(self, make)

    def on_run_end(self, run: Run) -> None:
        sink = self._state(run).sink
        sink.ended(run.outcome or "failed", run.index + 1)
        sink.close()
        for complaint in sink.warned:
            run.warned(complaint)

    def on_report(self, run: Run) -> Mapping[str, int]:
        state: PreviewedRun | None = run.kept(self)
        return {} if state is None else {"shown": state.sink.shown, "dropped": state.sink.dropped}

    def _state(self, run: Run) -> PreviewedRun:
        return run.state(self, lambda: self._begun(run))

    def _begun(self, run: Run) -> PreviewedRun:
        throttle = Throttle(self._every, self._max_fps)
        path = str(getattr(self._sink.sink, "path", ""))
        is_shown = run.is_first_rank or "{rank" in path
        sink = self._sink.for_run()
        state = PreviewedRun(sink, is_shown, run.rank, throttle, next(self._count))
        if path and is_shown and (other := written_by_other_rank(run, path)) is not None:
            state.failed = True
            _warn(f"previews are off for this run: {other}")
        return state

    def on_step_end(self, step: Step) -> None:
        state = self._state(step.run)
        wish = state.sink.asked() if self._asks else None
        if state.takes or self._decodes(step):
            try:
                self._show(step, state, ends=wish is not None)
            except Exception as error:
                state.failed = True
                message = f"previews are off for the rest of this run: {failure(error)}"
                step.run.warned(message)
                _warn(message)
        if wish == "interrupt":
            step.interrupt(picture="denoised")  # which is what is shown
        elif wish == "cancel":
            latents = step.ops.to_numpy(step["latents"])
            raise GenerationCancelled(step.index, step.timestep, latents)

    def _show(self, step: Step, state: PreviewedRun, ends: bool) -> None:
        last = step.index + 1 == step.num_timesteps
        kind = step.run.denoised_kind if self._denoises else "none"
        between = kind != "none" and not step.is_whole
        due = state.throttle.shows(step.index, step.num_timesteps)
        # What only this process knows decides about nothing that others wait for.
        due = due or (ends and not self._decodes(step))
        if (between and not last) or not due:
            return
        takes = state.takes and state.sink.wants_more()
        state.failed |= state.takes and not takes
        if not (takes or self._decodes(step)):
            return
        if state.pictures is None:
            state.pictures = StepPictures(self._painter(step.run.target), self._frames)
        pixels = state.pictures.of(step, step.lazy_denoised() if self._denoises else None)
        if takes:
            shown = "noisy" if kind == "none" else kind
            about = step.index, step.num_timesteps, shown
            state.sink.put(state.maker(*about, pixels, self._shaped))

    def _decodes(self, step: Step) -> bool:
        """Return whether a picture is made in any case: other processes may wait for it."""
        return self._decoder is not None and step.run.is_shared

    def _shaped(self, pixels: npt.NDArray[np.uint8]) -> Shaped:
        if self._frames != "animation":
            images = [Image.fromarray(picture) for picture in pixels]
            return shape_images(images, self._size, self._batch), []
        videos = [[Image.fromarray(picture) for picture in video] for video in pixels]
        shaped = shape_videos(videos, self._size, self._batch)
        return [video[len(video) // 2] for video in shaped], shaped


def _here(size: Size | None) -> SinkLike:
    """Return the sink of where one is."""
    from unicb import jupyter
    from unicb.sinks.notebook import FORMS, Notebook

    if jupyter.shell() is None:
        raise TypeError(
            "Preview() shows previews in a Jupyter notebook, which this is not; say where they go: "
            f"{FORMS}"
        )
    return Notebook(size=size)


def _beside_the_run(to: SinkLike) -> Background:
    if isinstance(to, Background):
        return to
    # What a list holds is held anyway.
    collects = not callable(to) and hasattr(to, "append")
    return Background(to, maxsize=None) if collects else Background(to)


def _check_animates(sink: object) -> None:
    if isinstance(sink, FileSink) and not sink.animates:
        raise ValueError(
            "frames='animation' needs a file that holds one: end the template in .webp, .gif or "
            ".png, or take frames='middle' or 'strip'"
        )


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)
