"""Find what makes a Preview's pictures: the colours that it was given, or those that are known for
the pipeline; or a decoder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from unicb.callbacks._preview_pictures import Painter
from unicb.checks import shown
from unicb.latents import ColourMap, LatentFormat, find_format
from unicb.latents.formats import check_is_for, load_format

if TYPE_CHECKING:
    from unicb import Target
    from unicb.latents.decoders import Decoder

#: A format, or that one is to be fitted; None: the one that is known for the pipeline.
Colours: TypeAlias = LatentFormat | Literal["fit"] | None


def given_colours(factors: Any) -> Colours:
    """Return what a Preview was given as its ``factors``.

    Raises:
        OSError, ValueError: the file cannot be read, or holds no format; the word names none.
        TypeError: it is nothing of this kind.
    """
    if factors is None or isinstance(factors, LatentFormat):
        return factors
    if isinstance(factors, str) and factors == "fit":
        return "fit"
    if isinstance(factors, str | os.PathLike):
        return load_format(factors)
    form = getattr(factors, "form", None)
    if not isinstance(form, LatentFormat):
        raise TypeError(
            "factors must be a LatentFormat, the name of a format, a TOML file with one, or 'fit', "
            f"not {shown(factors)}"
        )
    return form


def painter_for(
    target: Target, decoder: Decoder | None, colours: Colours, by_name: bool
) -> Painter:
    """Return what makes pictures of the pipeline's latents.

    Args:
        target: the pipeline.
        decoder: that the Preview was given, if any.
        colours: those that it was given, and whether by the name of a known format, which has to be
            the pipeline's.

    Raises:
        ValueError, UnsupportedPipelineError: these are not for the pipeline, or its format is not
            known.
    """
    pipeline, facts, layout = target.pipeline, target.facts, target.layout
    if decoder is not None:
        from unicb.latents.decoders import decoder_for

        return Painter(None, decoder_for(decoder, pipeline, facts, layout, target.backend), facts)
    return Painter(ColourMap(_format_for(target, colours, by_name), layout), None, facts)


def _format_for(target: Target, colours: Colours, by_name: bool) -> LatentFormat:
    if isinstance(colours, LatentFormat):
        if by_name:
            check_is_for(colours, target.pipeline)
        return colours
    if colours == "fit":
        from unicb.latents.fitted import fitted_format

        return fitted_format(target.pipeline, target.backend)
    return find_format(target.pipeline, target.facts)
