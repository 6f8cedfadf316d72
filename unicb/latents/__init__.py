"""What the numbers in a pipeline's latents mean: formats, and how to look at them."""

from unicb.latents.formats import LatentFormat, find_format
from unicb.latents.rgb import RGBArray, to_rgb

__all__ = ["LatentFormat", "RGBArray", "find_format", "to_rgb"]
