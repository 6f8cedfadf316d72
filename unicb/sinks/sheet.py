"""Write a run's previews into one picture."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Self

from PIL import Image, ImageDraw, ImageFont

from unicb.checks import whole_number
from unicb.sinks._save import format_of, of_rank, save
from unicb.sinks._thinned import Thinned
from unicb.sinks.frame import PreviewFrame
from unicb.sinks.shape import Batch, Size, check_batch, check_size, grid, shape_images

_GAP = 4


class ContactSheet:
    """Write the previews of a run side by side in one picture, when the run is over.

    Memory is bounded as in :class:`Animation`: at most ``max_frames`` steps are held, evenly spaced
    over the run. A further run overwrites the file. Of a video, it shows the middle latent frame at
    each step.

    Args:
        path: the file to write, with a suffix that pillow can write. With several processes,
            ``{rank}`` in it is the process's number. Missing folders are made, and the file appears
            under its name when it is complete.
        columns: number of steps side by side, from 1; None: about as many as rows.
        label: True: write each step's index, from 0, above its picture.
        size, batch: as for :func:`shape_images`; by default, several pictures of a batch go into a
            grid.
        max_frames: the most steps to hold, from 2.

    Raises:
        ValueError: ``path`` has an unknown suffix, or a value is out of range.
        TypeError: a value is of the wrong type.
        OSError: from ``close``: the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: int | None = None,
        label: bool = True,
        *,
        size: Size | None = None,
        batch: Batch = "grid",
        max_frames: int = 64,
    ) -> None:
        self._path = Path(path)
        format_of(self._path)
        self._columns = None if columns is None else whole_number("columns", columns)
        self._label = bool(label)
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
        return f"ContactSheet({os.fspath(self._path)!r})"

    def close(self) -> None:
        """Write the file, unless there were no frames."""
        cells = [
            _labelled(shown.picture, str(shown.step)) if self._label else shown.picture
            for shown in self._frames.take()
        ]
        if cells:
            save(
                grid(cells, self._columns, gap=_GAP, background="white"),
                of_rank(self._path, self._rank),
            )


def _labelled(picture: Image.Image, text: str) -> Image.Image:
    """Return the picture with a line of text above; a narrower picture gets more space."""
    font = ImageFont.load_default()
    _, _, width, height = (round(edge) for edge in font.getbbox(text))
    size = max(picture.width, width), picture.height + height + 2
    cell = Image.new("RGB", size, "white")
    ImageDraw.Draw(cell).text((0, 0), text, fill="black", font=font)
    cell.paste(picture, (0, height + 2))
    return cell
