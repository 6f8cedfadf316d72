"""Decode a pipeline's latents, by a model or by a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from unicb.backend import Backend
from unicb.latents._unpack import unpack
from unicb.latents._vae import (
    Affine,
    VAEDecoding,
    compute_like,
    is_of_video,
    pipeline_decoding,
    refuse_offloaded,
    vae_decoding,
)
from unicb.latents.layouts import Layout
from unicb.latents.rgb import Frames
from unicb.ops import Tensor, TensorOps

_Bytes: TypeAlias = npt.NDArray[np.uint8]


class Decoded(NamedTuple):
    """``Decoded`` holds the result of decoding: a tensor still on its device, or a function's
    pictures.

    Attributes:
        tensor: floating-point pictures, 0 for black and 255 for white, not yet clamped;
            ``to_uint8`` turns them into bytes, in any thread. None if there are ``images``.
        images: pictures, ``numpy.uint8`` ``[rows, frames, height, width, 3]``. None if there is a
            tensor.
        arrange: a function that brings the tensor's bytes to ``[rows, frames, height, width, 3]``.
    """

    tensor: Tensor | None
    images: _Bytes | None
    arrange: Callable[[_Bytes], _Bytes]


class ModelDecoder:
    def __init__(
        self,
        model: Any,
        affine: Affine,
        channels: int,
        layout: Layout,
        backend: Backend,
        pipeline: Any,
    ) -> None:
        self._model, self._affine, self._channels = model, affine, channels
        self._layout, self._backend = layout, backend
        self._about, self._of_vae = pipeline_decoding(pipeline), vae_decoding(model)
        self._video = is_of_video(model)

    def decode(self, latents: Tensor, size: Sequence[int] | None, frames: Frames) -> Decoded:
        refuse_offloaded(self._model)
        middle = frames == "middle"
        shown, start = unpack(
            latents,
            self._layout,
            self._channels,
            size,
            middle=middle and not self._of_vae.whole,
            first_frame=self._about.first_frame,
        )
        rows, count = int(shown.shape[0]), int(shown.shape[2])
        with self._backend.fork_rng(), left_as_it_was(self._model, self._of_vae.kept):
            encoded = self._as_encoded(shown, self._affine.frames(start, start + count))
            decoded = self._call(encoded)
        return _scaled(decoded, rows, middle, self._of_vae)

    def _as_encoded(self, shown: Tensor, affine: Affine) -> Tensor:
        """Return the latents as the VAE takes them: scaled, in its dtype and on its device."""
        ops = self._backend.ops
        if not affine.is_identity:
            edge, shape = affine.scale.shape[-1], tuple(shown.shape)
            split = (*shape[:3], shape[3] // edge, edge, shape[4] // edge, edge)
            scale, offset = (
                ops.from_numpy(x[:, :, None, :, None, :].astype(np.float32), shown) for x in affine
            )
            shown = (shown.reshape(split) * scale + offset).reshape(shape)
        return _cast(shown, compute_like(self._model), ops)

    def _call(self, encoded: Tensor) -> Tensor:
        """Decode latents ``[rows, channels, frames, height, width]`` to
        ``[rows, colours, frames, height, width]``."""
        rows, _, count, _, _ = encoded.shape
        if not self._video:
            return self._in_rows(
                decode(self._model, _joined(encoded), count, self._backend.ops), rows
            )
        if self._about.separate_frames:
            one_each = _joined(encoded)
            one_each = one_each.reshape((*one_each.shape[:2], 1, *one_each.shape[2:]))
            decoded = decode(self._model, one_each, 1, self._backend.ops)
            return self._in_rows(decoded[:, :, 0], rows)
        decoded = decode(self._model, encoded, count, self._backend.ops)
        return decoded.swapaxes(1, 2) if self._of_vae.frames_first else decoded

    @staticmethod
    def _in_rows(pictures: Tensor, rows: int) -> Tensor:
        """Return pictures ``[rows * frames, colours, …]`` as
        ``[rows, colours, frames, height, width]``."""
        count, *shape = pictures.shape
        return pictures.reshape((rows, count // rows, *shape)).swapaxes(1, 2)


def decode(vae: Any, encoded: Tensor, frames: int, ops: TensorOps) -> Tensor:
    """Decode latents that are scaled for the VAE, with the further arguments that this VAE needs.

    Args:
        vae: the VAE that decodes.
        encoded: ``[rows, channels, frames, height, width]``, or for a VAE of pictures
            ``[rows * frames, channels, height, width]``.
        frames: number of frames in each row.
        ops: the tensor operations of the VAE's framework.
    """
    takes = inspect.signature(vae.decode).parameters
    more: dict[str, Any] = {}
    if "num_frames" in takes:
        more["num_frames"] = frames
    if "force_not_quantize" in takes:
        more["force_not_quantize"] = True
    if "temb" in takes and getattr(vae.config, "timestep_conditioning", False):
        # The pipelines' own default: decode as if no noise were left.
        more["temb"] = ops.from_numpy(np.zeros(int(encoded.shape[0]), np.float32), encoded)
    return vae.decode(encoded, return_dict=False, **more)[0]


def _joined(encoded: Tensor) -> Tensor:
    """Return latents as ``[rows * frames, channels, height, width]``."""
    rows, channels, count, height, width = encoded.shape
    return encoded.swapaxes(1, 2).reshape((rows * count, channels, height, width))


def _cast(x: Tensor, like: Tensor | None, ops: TensorOps) -> Tensor:
    """Return ``x`` with the dtype and on the device of ``like``.

    The copy goes through the host, which waits for the device; only latents are copied, which are
    small.
    """
    if like is None:
        return x
    placed = [(value.dtype, str(getattr(value, "device", ""))) for value in (x, like)]
    return x if placed[0] == placed[1] else ops.from_numpy(ops.to_numpy(x), like)


@contextmanager
def left_as_it_was(model: Any, kept: Sequence[str]) -> Iterator[None]:
    """Restore after the block the frame features that some video VAEs keep while they decode, on
    the VAE or on its layers.

    Args:
        model: the VAE that is called in the block.
        kept: names of the layers' attributes with such features. They are None when the block
            begins.
    """
    own = dict(vars(model))
    layers = [(layer, name) for layer in _layers_of(model) for name in kept if hasattr(layer, name)]
    theirs = [getattr(layer, name) for layer, name in layers]
    for layer, name in layers:
        setattr(layer, name, None)
    try:
        yield
    finally:
        now = vars(model)
        for name in [name for name in now if name not in own]:
            del now[name]
        now.update({name: value for name, value in own.items() if now.get(name) is not value})
        for (layer, name), value in zip(layers, theirs, strict=True):
            setattr(layer, name, value)


def _layers_of(model: Any) -> Iterator[Any]:
    # torch's models and MindSpore's have different names for this.
    if hasattr(model, "modules"):
        yield from model.modules()
    elif hasattr(model, "cells_and_names"):
        yield from (cell for _, cell in model.cells_and_names())


def _scaled(decoded: Tensor, rows: int, middle: bool, about: VAEDecoding) -> Decoded:
    """Scale pictures ``[rows, colours, frames, height, width]`` to 0..255."""
    shape = tuple(decoded.shape)
    if len(shape) != 5 or shape[0] != rows or shape[1] < 3:
        raise ValueError(
            f"what was decoded has the shape {shape}, instead of [{rows}, 3, frames, height, width]"
        )
    chosen = slice(shape[2] // 2, shape[2] // 2 + 1) if middle else slice(0, shape[2])
    colours = decoded[:, :3, chosen]
    low, high = about.output_range
    scale = 255.0 / (high - low)
    # One half is added, because `to_uint8` truncates.
    return Decoded(colours * scale + (0.5 - low * scale), None, _channels_last)


def _channels_last(pictures: _Bytes) -> _Bytes:
    return np.ascontiguousarray(pictures.transpose(0, 2, 3, 4, 1))


class FunctionDecoder:
    def __init__(
        self,
        function: Callable[[Tensor], Any],
        layout: Layout,
        channels: int | None,
        backend: Backend,
    ) -> None:
        self._function, self._layout = function, layout
        self._channels, self._backend = channels, backend

    def decode(self, latents: Tensor, size: Sequence[int] | None, frames: Frames) -> Decoded:
        channels = self._channels
        if self._layout.axes[self._layout.channel_axis] == "c":
            channels = int(latents.shape[self._layout.channel_axis])
        assert channels is not None  # decoder_for has checked that
        middle = frames == "middle"
        shown, _ = unpack(latents, self._layout, channels, size, middle=middle)
        if "t" not in "".join(self._layout.axes):
            shown = shown[:, :, 0]
        rows = int(shown.shape[0])
        with self._backend.fork_rng():
            made = self._function(shown)
        return self._decoded(made, rows, middle)

    def _decoded(self, made: Any, rows: int, middle: bool) -> Decoded:
        if self._backend.is_tensor(made):
            if len(made.shape) == 4:
                made = made.reshape((*made.shape[:2], 1, *made.shape[2:]))
            return _scaled(made, rows, middle, vae_decoding(None))
        if isinstance(made, list) and all(isinstance(item, Image.Image) for item in made):
            if not made or len(made) % rows:
                raise ValueError(f"the decoder made {len(made)} images for {rows} rows of latents")
            arrays = np.stack([np.asarray(image.convert("RGB")) for image in made])
            made = arrays.reshape(rows, -1, *arrays.shape[1:])
        elif isinstance(made, np.ndarray) and made.dtype == np.uint8:
            made = made[:, None] if made.ndim == 4 else made
        else:
            raise TypeError(
                "the decoder must return a tensor, a list of PIL images or a uint8 array, not "
                f"{type(made).__name__}"
                + (f" of {made.dtype}" if isinstance(made, np.ndarray) else "")
            )
        if made.ndim != 5 or made.shape[0] != rows or made.shape[-1] != 3:
            raise ValueError(
                f"the decoder made pictures of shape {made.shape} for {rows} rows of latents, "
                f"instead of [{rows}, height, width, 3]"
            )
        if middle:
            chosen = made.shape[1] // 2
            made = made[:, chosen : chosen + 1]
        return Decoded(None, np.ascontiguousarray(made), lambda pictures: pictures)
