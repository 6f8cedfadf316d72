"""Describe a pipeline's latents: their formats, their layouts, and how to make pictures of them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unicb.latents.fit import Fit, fit_rgb_factors
    from unicb.latents.formats import LatentFormat, builtin_formats, find_format
    from unicb.latents.layouts import Layout, layout_of, size_of_latents
    from unicb.latents.rgb import ColourMap, Frames, RGBArray, to_rgb
else:
    from unicb._lazy import lazy

    __getattr__, __dir__ = lazy(
        __name__,
        {
            "unicb.latents.fit": ("Fit", "fit_rgb_factors"),
            "unicb.latents.formats": ("LatentFormat", "builtin_formats", "find_format"),
            "unicb.latents.layouts": ("Layout", "layout_of", "size_of_latents"),
            "unicb.latents.rgb": ("ColourMap", "Frames", "RGBArray", "to_rgb"),
        },
    )

__all__ = [
    "ColourMap",
    "Fit",
    "Frames",
    "LatentFormat",
    "Layout",
    "RGBArray",
    "builtin_formats",
    "find_format",
    "fit_rgb_factors",
    "layout_of",
    "size_of_latents",
    "to_rgb",
]
