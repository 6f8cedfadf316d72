"""Write one file for each picture."""

from __future__ import annotations

import os
import string
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from unicb.checks import number_within
from unicb.sinks._animated import can_animate, save_animation
from unicb.sinks._save import save
from unicb.sinks.frame import PreviewFrame

_EXAMPLE = {"step": 0, "image": 0, "num_timesteps": 1, "run": 0, "rank": 0}


class FileSink:
    """Write each frame's pictures to files named by a template.

    A frame with videos is written as animations, if the suffix allows it (see ``animates``);
    otherwise the middle latent frame of each video is written.

    Args:
        template: a path with the fields ``{step}`` (needed), ``{image}`` (index in the batch),
            ``{num_timesteps}``, ``{run}`` (number of the Preview's run, from 0) and ``{rank}``
            (number of the process, with several), and a suffix that pillow can write. Missing
            folders are made. If a frame has several pictures, a template without ``{image}`` gets
            ``-0``, ``-1``, … before its suffix. A file appears under its name when it is complete.
        fps: latent frames per second of an animation, 0.1..50. GIF counts hundredths of a second.
            To play at the video's speed, divide its frame rate by its frames per latent frame (4
            for Wan, 8 for LTX, 1 for AnimateDiff); the latents show neither number.

    Raises:
        ValueError: the template has an unknown field, none for the step, or a suffix of which
            pillow can write no RGB picture; or ``fps`` is out of range.
        TypeError: ``fps`` is no number.
        OSError: from a call: a file cannot be written.
    """

    def __init__(self, template: str | os.PathLike[str], *, fps: float = 8.0) -> None:
        template = os.fsdecode(template)
        used = _fields(template)
        if "step" not in used:
            raise ValueError(
                f"preview template {template!r} has no {{step}}: every preview would overwrite "
                "the one before; write for instance 'steps/{step:03d}.png'"
            )
        self._animates = can_animate(Path(template.format(**_EXAMPLE)))
        self._milliseconds = round(1000.0 / number_within("fps", fps, 0.1, 50.0))
        if "image" in used:
            self._single = self._batched = template
        else:
            stem, suffix = os.path.splitext(template)
            self._single, self._batched = template, f"{stem}-{{image}}{suffix}"

    @property
    def animates(self) -> bool:
        """Return whether files of this suffix hold a video: ``.webp``, ``.gif``, ``.png``,
        ``.apng``."""
        return self._animates

    @property
    def path(self) -> str:
        """Return the path template."""
        return os.path.abspath(self._single)

    def __call__(self, frame: PreviewFrame) -> None:
        shown: Sequence[Image.Image | Sequence[Image.Image]] = frame.images
        if self._animates and frame.videos:
            shown = frame.videos
        template = self._single if len(shown) == 1 else self._batched
        for index, each in enumerate(shown):
            path = Path(
                template.format(
                    step=frame.step,
                    image=index,
                    num_timesteps=frame.num_timesteps,
                    run=frame.run,
                    rank=frame.rank,
                )
            )
            if isinstance(each, Image.Image):
                save(each, path)
            else:
                save_animation(each, path, [self._milliseconds] * len(each))

    def __repr__(self) -> str:
        return f"FileSink({self._single!r})"

    def close(self) -> None:
        """Do nothing: each file is written when its frame comes."""


def _fields(template: str) -> set[str]:
    try:
        template.format(**_EXAMPLE)
        return {name for _, name, _, _ in string.Formatter().parse(template) if name}
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(
            f"preview template {template!r} cannot be filled in ({error}); "
            f"its fields may be {', '.join('{' + name + '}' for name in _EXAMPLE)}"
        ) from error
