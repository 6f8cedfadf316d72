"""From latents to colours, in one small transfer from the device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from unicb.latents.formats import LatentFormat
from unicb.ops import Tensor, TensorOps


class RGBArray(NamedTuple):
    """Colours of a batch of latents, on the host.

    Attributes:
        pixels: ``numpy.uint8``, ``[batch, height, width, 3]``; black where the latents are not
            finite.
        finite: whether all of the latents are.
    """

    pixels: npt.NDArray[np.uint8]
    finite: bool


def to_rgb(latents: Tensor, form: LatentFormat, ops: TensorOps) -> RGBArray:
    """Colours of latents ``[batch, channels, height, width]``, of any floating dtype.

    Raises:
        ValueError: the latents are not of that shape, with the format's number of channels.
    """
    shape = tuple(latents.shape)
    if len(shape) != 4 or shape[1] != form.latent_channels:
        raise ValueError(
            f"latents of shape {shape} are not [batch, {form.latent_channels}, height, width] "
            f"as the format {form.name!r} has it"
        )
    batch, channels, height, width = shape
    weights, bias = _weights(form)
    columns = latents.reshape((batch, channels, height * width))
    scaled = ops.matmul(ops.from_numpy(weights, latents), columns)
    planes = ops.to_uint8(scaled + ops.from_numpy(bias, latents))
    pixels = planes.reshape(batch, 4, height, width).transpose(0, 2, 3, 1)
    valid = pixels[..., 3:] > 0
    return RGBArray(pixels[..., :3] * valid, bool(valid.all()))


def _weights(form: LatentFormat) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Rows for red, green, blue in 0..255, and a fourth that tells finite cells from others.

    The fourth multiplies everything by 0 and adds 255. Only finite numbers times 0 are 0; NaN and
    the infinities give NaN, which becomes 0. So the check costs no transfer of its own.
    """
    low, high = form.output_range
    scale = 255.0 / (high - low)
    factors = np.asarray(form.factors, dtype=np.float64).T * scale
    offsets = (np.asarray(form.bias, dtype=np.float64) - low) * scale
    weights = np.concatenate([factors, np.zeros((1, form.latent_channels))])
    bias = np.concatenate([offsets, [255.0]])[:, None]
    return weights.astype(np.float32), bias.astype(np.float32)
