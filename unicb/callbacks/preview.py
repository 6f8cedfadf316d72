"""See the picture form."""

from __future__ import annotations

import os
import string
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from PIL import Image

from unicb.callback import Callback
from unicb.callbacks._arguments import step_interval
from unicb.latents import LatentFormat, find_format, to_rgb
from unicb.pipelines import PipelineFacts
from unicb.step import Step


@dataclass(frozen=True)
class PreviewFrame:
    """The previews of one step.

    Attributes:
        step: index of the step, from 0.
        num_timesteps: how many steps there are.
        timestep: the scheduler's timestep.
        images: one RGB picture for each row of the batch, one pixel for each latent cell.
    """

    step: int
    num_timesteps: int
    timestep: float
    images: list[Image.Image]


Sink: TypeAlias = Callable[[PreviewFrame], object]


class Preview(Callback):
    """Show the latents as pictures while they are being denoised.

    The pictures are a linear map of the latents' channels to colours: cheap, and as noisy as the
    latents are. They never change the latents, and never cost the finished picture: whatever goes
    wrong with a preview is told in one warning, and previews are off for the rest of that run.
    Latents that are not finite are shown black, with one warning.

    Args:
        to: a path template such as ``"steps/{step:03d}.png"``, or a callable that takes a
            :class:`PreviewFrame`. A template may use ``{step}``, ``{image}`` (index in the batch)
            and ``{num_timesteps}``; folders are made, and in a batch a template without
            ``{image}`` gets ``-0``, ``-1``, … before its suffix.
        every: show steps 0, ``every``, ``2 * every``, …, and the last.
        factors: a :class:`LatentFormat`, or a TOML file with one; without it, that of the
            checkpoint's ``preview.toml`` or of the pipeline's class.

    Raises:
        ValueError: the template has an unknown field or none for the step, or ``every`` < 1.
        TypeError: ``to`` is neither path nor callable, ``every`` is no int.
        OSError, ValueError: the file ``factors`` cannot be read, or holds no format.
        UnsupportedPipelineError: from ``bind``, where the format of the latents is not known.
    """

    tensors = ("latents",)

    def __init__(
        self,
        to: str | os.PathLike[str] | Sink,
        every: int = 1,
        *,
        factors: LatentFormat | str | os.PathLike[str] | None = None,
    ) -> None:
        self._sink = _as_sink(to)
        self._every = step_interval("every", every)
        if factors is not None and not isinstance(factors, LatentFormat):
            factors = LatentFormat.load(factors)
        self._factors = factors
        self._formats: WeakKeyDictionary[Any, LatentFormat] = WeakKeyDictionary()
        self._failed = False
        self._warned_not_finite = False

    def on_bind(self, pipeline: Any, facts: PipelineFacts | None) -> None:
        self._formats[pipeline] = self._factors or find_format(pipeline, facts)

    def on_run_start(self) -> None:
        self._failed = False
        self._warned_not_finite = False

    def on_step_end(self, step: Step) -> None:
        if self._failed or not self._shows(step):
            return
        try:
            self._sink(self._frame(step))
        except Exception as error:
            self._failed = True
            _warn(f"previews are off for the rest of this run: {type(error).__name__}: {error}")

    def _shows(self, step: Step) -> bool:
        return step.index % self._every == 0 or step.index + 1 == step.num_timesteps

    def _frame(self, step: Step) -> PreviewFrame:
        pixels, finite = to_rgb(step["latents"], self._formats[step.pipeline], step.ops)
        if not finite and not self._warned_not_finite:
            self._warned_not_finite = True
            _warn(f"latents are not finite at step {step.index}; these are shown black")
        images = [Image.fromarray(picture) for picture in pixels]
        return PreviewFrame(step.index, step.num_timesteps, step.timestep, images)


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _as_sink(to: str | os.PathLike[str] | Sink) -> Sink:
    if isinstance(to, str | os.PathLike):
        return _FileSink(os.fspath(to))
    if not callable(to):
        raise TypeError(f"Preview takes a path template or a callable, not {to!r}")
    return to


class _FileSink:
    """Writes the pictures of a frame to the paths that a template gives."""

    def __init__(self, template: str) -> None:
        known = {"step": 0, "image": 0, "num_timesteps": 1}
        try:
            used = {name for _, name, _, _ in string.Formatter().parse(template) if name}
            template.format(**known)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ValueError(
                f"preview template {template!r} cannot be filled in ({error}); "
                f"its fields may be {', '.join('{' + name + '}' for name in known)}"
            ) from error
        if "step" not in used:
            raise ValueError(
                f"preview template {template!r} has no {{step}}: every preview would overwrite "
                "the one before; write for instance 'steps/{step:03d}.png'"
            )
        if "image" in used:
            self._single = self._batched = template
        else:
            stem, suffix = os.path.splitext(template)
            self._single, self._batched = template, f"{stem}-{{image}}{suffix}"

    def __call__(self, frame: PreviewFrame) -> None:
        template = self._single if len(frame.images) == 1 else self._batched
        for index, image in enumerate(frame.images):
            path = Path(
                template.format(step=frame.step, image=index, num_timesteps=frame.num_timesteps)
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
