"""Write PNG files fast: previews are looked at once, and must not slow the run down."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB = 2
_NONE, _UP = 0, 2  # filters: unchanged bytes; differences from the bytes above
_SMALL = 1 << 16


def write_png(picture: Image.Image, file: BinaryIO) -> None:
    """Write an RGB picture in the format of https://www.w3.org/TR/png-3/.

    Small pictures are not compressed: a preview with one pixel per cell would hardly shrink (to 44
    kB of 48 kB, for 128 x 128 natural latents). Larger ones were enlarged and compress well:
    several times as fast as with an encoder that tries all filters and looks for repetitions, to
    files of about the same size. Against pillow's ``compress_level=1`` on a CPU core, this takes
    0.07 ms instead of 2.1 ms for 128 x 128 natural latents, and 13 ms instead of 37 ms when they
    are shown at 512.

    Raises:
        OSError: the file cannot be written.
    """
    pixels = np.asarray(picture)
    height, width, _ = pixels.shape
    rows = pixels.reshape(height, 3 * width)
    lines = np.empty((height, 1 + 3 * width), dtype=np.uint8)
    small = rows.nbytes <= _SMALL
    lines[:, 0] = _NONE if small else _UP
    lines[:, 1:] = rows
    if not small:
        lines[1:, 1:] -= rows[:-1]
    deflate = zlib.compressobj(0 if small else 1, zlib.DEFLATED, strategy=zlib.Z_RLE)
    data = deflate.compress(lines.data) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, _RGB, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b""))
    file.write(b"".join((_SIGNATURE, *chunks)))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
