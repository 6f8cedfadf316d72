"""Write pictures and short videos as HTML that contains their data."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image, features

from unicb.sinks._png import write_png
from unicb.sinks.shape import Size

#: Pictures of up to this many pixels are lossless. A preview has one pixel for each latent cell.
_SMALL = 128 * 128
#: Default length of the longer side on the screen, in CSS pixels: of one picture, of several.
_ALONE, _ONE_OF_SEVERAL = 256, 128
_FILLING = "display:block;width:100%;height:100%;margin:0"


def png(picture: Image.Image) -> bytes:
    """Return an RGB picture as a PNG file."""
    buffer = io.BytesIO()
    write_png(picture, buffer)
    return buffer.getvalue()


def gallery(
    shown: Sequence[Image.Image | Sequence[Image.Image]],
    words: str,
    *,
    size: Size | None = None,
    milliseconds: int = 125,
) -> str:
    """Return pictures or videos side by side, as many as there is room for, and words below.

    Args:
        shown: RGB pictures, or for a video the list of its frames.
        words: plain text below, and as the alternative text.
        size: size on the screen in CSS pixels: of the longer side, or (width, height). None: the
            picture's own size, but at least 256 for one picture and 128 for several.
        milliseconds: how long each frame of a video is shown, in ms.
    """
    least = _ALONE if len(shown) == 1 else _ONE_OF_SEVERAL
    text = html.escape(words)
    tags = [_tag(each, text, size, least, milliseconds) for each in shown]
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:4px">{"".join(tags)}</div>'
        f'<div style="font-variant-numeric:tabular-nums">{text}</div>'
    )


def _tag(
    shown: Image.Image | Sequence[Image.Image],
    text: str,
    size: Size | None,
    least: int,
    milliseconds: int,
) -> str:
    if isinstance(shown, Image.Image):
        kind, data, first = *_encoded(shown), shown
    elif len(shown) == 1:  # a single latent frame: a picture
        kind, data, first = *_encoded(shown[0]), shown[0]
    else:
        kind, data, first = *_animated(shown, milliseconds), shown[0]
    width, height = _on_screen(first, size, least)
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    # The space is reserved before the picture is loaded, so that nothing jumps when it is replaced;
    # it keeps its proportions if the width has to shrink, as on a phone.
    room = f"width:{width}px;max-width:100%;aspect-ratio:{width}/{height}"
    image = f'<img src="{source}" alt="{text}" decoding="sync" style="{_FILLING}">'
    return f'<div style="{room}">{image}</div>'


def _on_screen(picture: Image.Image, size: Size | None, least: int) -> tuple[int, int]:
    if isinstance(size, tuple):
        return size
    longer = max(picture.size)
    scale = (size if size is not None else max(least, longer)) / longer
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


def _encoded(picture: Image.Image) -> tuple[str, bytes]:
    if picture.width * picture.height <= _SMALL:
        return "png", png(picture)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return "jpeg", buffer.getvalue()


def _animated(frames: Sequence[Image.Image], milliseconds: int) -> tuple[str, bytes]:
    kind = "webp" if features.check("webp") else "png"
    buffer = io.BytesIO()
    options = {"quality": 80, "method": 0} if kind == "webp" else {}
    frames[0].save(
        buffer,
        format=kind.upper(),
        save_all=True,
        append_images=frames[1:],
        duration=milliseconds,
        loop=0,
        **options,
    )
    return kind, buffer.getvalue()
