"""Show a run as an animation."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Self

from unicb.checks import number_within, whole_number
from unicb.sinks._animated import can_animate, save_animation
from unicb.sinks._save import of_rank
from unicb.sinks._thinned import Thinned
from unicb.sinks.frame import PreviewFrame
from unicb.sinks.shape import Batch, Size, check_batch, check_size, grid, shape_images

_FORMATS = {".webp": "WEBP", ".gif": "GIF"}
_LONGEST = 60.0


class Animation:
    """Write the previews of a run as one animated picture, when the run is over.

    Memory is bounded: at most ``max_frames`` pictures are held. Each time the limit is reached,
    every second one is dropped, so that the rest are evenly spaced over the run, with its first and
    last. A further run overwrites the file. Of a video, it shows the middle latent frame at each
    step: the animation plays the run, not the video.

    Args:
        path: the file to write, ``.webp`` or ``.gif``. With several processes, ``{rank}`` in it is
            the process's number. Missing folders are made, and the file appears under its name when
            it is complete.
        duration: how long each frame is shown, in seconds, 0.01..60. GIF counts in hundredths of a
            second. Pillow may merge equal neighbours into one longer frame.
        hold: how long the last frame is shown before the animation repeats, in seconds, 0.01..60.
        size, batch: as for :func:`shape_images`; by default, several pictures of a batch go into a
            grid.
        max_frames: the most frames to hold, from 2.

    Raises:
        ValueError: ``path`` has another suffix, a value is out of range, or pillow cannot animate
            WebP.
        TypeError: a value is of the wrong type.
        OSError: from ``close``: the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        duration: float = 0.1,
        *,
        hold: float = 1.0,
        size: Size | None = None,
        batch: Batch = "grid",
        max_frames: int = 64,
    ) -> None:
        self._path = Path(path)
        _check_format(self._path)
        self._duration = number_within("duration", duration, 0.01, _LONGEST)
        self._hold = number_within("hold", hold, 0.01, _LONGEST)
        self._size, self._batch = check_size(size), check_batch(batch)
        self._rank = 0
        self._frames = Thinned(whole_number("max_frames", max_frames, least=2))

    def for_run(self) -> Self:
        """Return a sink for one of several runs: it collects separately, and writes the same
        file."""
        other = copy.copy(self)
        other._frames = self._frames.empty()
        return other

    @property
    def path(self) -> str:
        """Return the path to write to, with the field ``{rank}`` unfilled."""
        return os.path.abspath(self._path)

    def __call__(self, frame: PreviewFrame) -> None:
        self._rank = frame.rank
        pictures = shape_images(frame.images, self._size, self._batch)
        self._frames.add(frame.step, pictures[0] if len(pictures) == 1 else grid(pictures))

    def __repr__(self) -> str:
        return f"Animation({os.fspath(self._path)!r})"

    def close(self) -> None:
        """Write the file, unless there were no frames."""
        pictures = [shown.picture for shown in self._frames.take()]
        if not pictures:
            return
        seconds = [self._duration] * (len(pictures) - 1) + [self._hold]
        save_animation(
            pictures, of_rank(self._path, self._rank), [round(1000 * each) for each in seconds]
        )


def _check_format(path: Path) -> None:
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise ValueError(f"an animation is written as .webp or .gif, not as {path.name!r}")
    if not can_animate(path):
        raise ValueError(f"this pillow was built without animated {form}; write a .gif instead")
