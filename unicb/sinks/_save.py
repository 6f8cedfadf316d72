"""Write a picture so that no reader ever finds a half-written file."""

from __future__ import annotations

import contextlib
import functools
import io
import os
from pathlib import Path
from typing import Any

from PIL import Image

from unicb.sinks._png import write_png


def format_of(path: Path) -> str:
    """Return pillow's name for the format of a path's suffix.

    Raises:
        ValueError: pillow cannot write an RGB picture to a file with this suffix.
    """
    suffix = path.suffix.lower()
    Image.preinit()
    if suffix not in Image.EXTENSION:
        Image.init()  # loads every plugin, for the rarer formats
    form = Image.EXTENSION.get(suffix)
    if form is None or not _writes(form):
        what = f"the suffix {suffix!r}" if suffix else "no suffix"
        raise ValueError(
            f"pillow can write no picture to {str(path)!r}, which has {what}: end it in .png, "
            ".webp or .jpg, and an animation in .webp or .gif"
        )
    return form


def of_rank(path: Path, rank: int) -> Path:
    """Return the path with a process's number in place of ``{rank}``."""
    return Path(str(path).replace("{rank}", str(rank)))


@functools.cache
def _writes(form: str) -> bool:
    # Being registered for writing is not enough: some formats have no colours, and some have a
    # handler that only raises.
    try:
        Image.new("RGB", (8, 8)).save(io.BytesIO(), format=form)
    except Exception:
        return False
    return True


def save(picture: Image.Image, path: Path, **options: Any) -> None:
    """Write to a temporary file in the folder of ``path``, then rename it; folders are made.

    A reader finds either the old file or the complete new one. After an error, the temporary file
    is removed and the old file is still there.

    Raises:
        OSError: the folder cannot be made or written to, or the disk is full.
        ValueError: pillow cannot write a file with this suffix.
    """
    form = format_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile, whose files only their owner may read.
    part = path.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        with open(part, "x+b") as file:
            if form == "PNG" and picture.mode == "RGB" and not options:
                write_png(picture, file)
            else:
                picture.save(file, format=form, **options)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
