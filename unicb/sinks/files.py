"""One file for each picture."""

from __future__ import annotations

import os
import string
from pathlib import Path

from unicb.sinks._save import format_of, save
from unicb.sinks.frame import PreviewFrame

_EXAMPLE = {"step": 0, "image": 0, "num_timesteps": 1}


class FileSink:
    """Writes the pictures of a frame to the paths that a template gives.

    Args:
        template: a path with the fields ``{step}`` (needed), ``{image}`` (index in the batch) and
            ``{num_timesteps}``, and a suffix that pillow can write. Folders are made. Where a
            frame has several pictures, a template without ``{image}`` gets ``-0``, ``-1``, …
            before its suffix. A file appears under its name when it is complete.

    Raises:
        ValueError: the template has an unknown field, none for the step, or an unknown suffix.
        OSError: on a call, where a file cannot be written.
    """

    def __init__(self, template: str | os.PathLike[str]) -> None:
        template = os.fsdecode(template)
        used = _fields(template)
        if "step" not in used:
            raise ValueError(
                f"preview template {template!r} has no {{step}}: every preview would overwrite "
                "the one before; write for instance 'steps/{step:03d}.png'"
            )
        format_of(Path(template.format(**_EXAMPLE)))
        if "image" in used:
            self._single = self._batched = template
        else:
            stem, suffix = os.path.splitext(template)
            self._single, self._batched = template, f"{stem}-{{image}}{suffix}"

    def __call__(self, frame: PreviewFrame) -> None:
        template = self._single if len(frame.images) == 1 else self._batched
        for index, image in enumerate(frame.images):
            path = template.format(step=frame.step, image=index, num_timesteps=frame.num_timesteps)
            save(image, Path(path))

    def close(self) -> None:
        """Nothing is left to do: each file is written when its frame comes."""


def _fields(template: str) -> set[str]:
    try:
        template.format(**_EXAMPLE)
        return {name for _, name, _, _ in string.Formatter().parse(template) if name}
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(
            f"preview template {template!r} cannot be filled in ({error}); "
            f"its fields may be {', '.join('{' + name + '}' for name in _EXAMPLE)}"
        ) from error
