"""Decode previews: full pictures, at the cost of running a decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from unicb.backend import Backend
from unicb.checks import one_of
from unicb.errors import UnsupportedPipelineError
from unicb.latents._decoding import Decoded, FunctionDecoder, ModelDecoder
from unicb.latents._vae import (
    INSTEAD,
    VAE_NAMES,
    affine_of,
    colour_channels,
    compute_like,
    latent_channels,
    pipeline_decoding,
    refuse_offloaded,
)
from unicb.latents.formats import builtin_formats
from unicb.latents.layouts import Layout
from unicb.latents.rgb import Frames
from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts

__all__ = ["Decoded", "Decoder", "PictureDecoder", "decoder_for"]

#: "vae", a model with ``decode`` and ``config``, or a function of latents.
Decoder: TypeAlias = Literal["vae"] | Callable[..., Any] | Any


class PictureDecoder(Protocol):
    """Make pictures of a pipeline's latents, without changing the pipeline."""

    def decode(self, latents: Tensor, size: Sequence[int] | None, frames: Frames) -> Decoded:
        """Decode at once, in the caller's thread, without recording gradients and without changing
        the frameworks' random numbers.

        Args:
            latents: latents in the pipeline's layout; they are not changed.
            size: (height, width) or (frames, height, width) in cells, if the layout has them in one
                axis; see :func:`unicb.latents.size_of_latents`.
            frames: for videos: "middle" decodes only the middle latent frame, the other words all
                frames.

        Raises:
            UnsupportedPipelineError: a model was offloaded since the decoder was made.
            ValueError: the latents do not fit the layout, channels or size, or the result is no
                pictures with these rows; the message has the shapes.
            TypeError: a function returned something else.
        """
        ...


def decoder_for(
    decoder: Decoder, pipeline: Any, facts: PipelineFacts | None, layout: Layout, backend: Backend
) -> PictureDecoder:
    """Return the decoder that ``Preview(decoder=...)`` names, checked against a pipeline.

    Args:
        decoder: "vae" for the pipeline's own VAE; a model with ``decode`` and ``config``, such as
            an ``AutoencoderTiny`` or another VAE of the same latents, used in place of the
            pipeline's VAE; or a function. A function gets the scheduler's latents, unpacked to
            ``[rows, channels, height, width]``, or to ``[rows, channels, frames, height, width]``
            if the layout has frames. It returns a tensor ``[rows, 3, height, width]`` (or with
            frames after the 3) in -1..1; or ``numpy.uint8`` ``[rows, height, width, 3]`` (or with
            frames after the rows); or a list of PIL images, one for each row.
        pipeline: the pipeline whose latents are decoded.
        facts: the facts about its class; or None.
        layout: the layout of its latents.
        backend: the backend of its framework.

    Raises:
        UnsupportedPipelineError: this decoder cannot decode the pipeline's latents; the message
            says why, and what to do.
        TypeError: ``decoder`` is none of these.
        ValueError: ``decoder`` is a string other than "vae".
    """
    name = type(pipeline).__name__
    if isinstance(decoder, str):
        one_of("decoder", decoder, ("vae",), "a model", "a function")
        return _model_decoder(_own_vae(pipeline), pipeline, facts, layout, backend)
    if hasattr(decoder, "decode") and hasattr(decoder, "config"):
        return _model_decoder(decoder, pipeline, facts, layout, backend)
    if not callable(decoder):
        raise TypeError(
            "decoder must be 'vae', a model with decode and config, or a function of latents, not "
            f"{type(decoder).__name__}"
        )
    channels = _channels_of(pipeline, facts)
    if channels is None and layout.axes[layout.channel_axis] != "c":
        raise UnsupportedPipelineError(
            f"no preview by a function for this {name}: nothing tells how many channels its packed "
            "latents have, neither its VAE nor its class. Leave decoder= out, and pass factors="
        )
    return FunctionDecoder(decoder, layout, channels, backend)


def _own_vae(pipeline: Any) -> Any:
    """Return the model with which the pipeline decodes its latents."""
    for name in VAE_NAMES:
        vae = getattr(pipeline, name, None)
        if vae is not None and hasattr(vae, "decode"):
            return vae
    raise UnsupportedPipelineError(
        f"no preview by decoder='vae' for this {type(pipeline).__name__}: it has no VAE that "
        f"decodes its latents. {INSTEAD}"
    )


def _channels_of(pipeline: Any, facts: PipelineFacts | None) -> int | None:
    """Return the number of channels of the pipeline's latents, from its VAE or its class's
    format."""
    for name in VAE_NAMES:
        said = latent_channels(getattr(pipeline, name, None))
        if said is not None:
            return said
    form = None if facts is None or facts.latents is None else builtin_formats()[facts.latents]
    return None if form is None else form.latent_channels


def _model_decoder(
    model: Any, pipeline: Any, facts: PipelineFacts | None, layout: Layout, backend: Backend
) -> PictureDecoder:
    kind, owner = type(model).__name__, type(pipeline).__name__

    def refuse(why: str) -> UnsupportedPipelineError:
        return UnsupportedPipelineError(f"no preview by {kind} for this {owner}: {why}. {INSTEAD}")

    about = pipeline_decoding(pipeline)
    if about.refused:
        raise refuse(about.refused)
    refuse_offloaded(model)
    like = compute_like(model)
    if like is None:
        raise refuse("it has no parameters to tell its dtype by")
    colours = colour_channels(model)
    if colours not in (3, 4) and not about.more_than_colours:
        raise refuse(f"it makes pictures of {colours} channels, not of red, green and blue")
    own = _channels_of(pipeline, facts)
    channels = latent_channels(model) or own
    if channels is None:
        raise refuse("its configuration does not tell how many channels its latents have")
    if own is not None and channels != own:
        raise refuse(
            f"it decodes latents of {channels} channels, and those of the pipeline have {own}"
        )
    if _overflows(model, pipeline, like):
        raise refuse(
            "it overflows in float16 (force_upcast), and to change its dtype during a run is not "
            "ours. Load one that does not, or load it in float32"
        )
    affine = affine_of(model, backend, channels, pipeline)
    vae = getattr(pipeline, "vae", None)
    both_full = vae not in (None, model) and not (_is_tiny(model) or _is_tiny(vae))
    if both_full and not affine.is_close_to(affine_of(vae, backend, channels, pipeline)):
        raise refuse(
            "its latents are scaled, shifted or normalised otherwise than those of the "
            f"pipeline's {type(vae).__name__}, so it is a VAE of other latents"
        )
    return ModelDecoder(model, affine, channels, layout, backend, pipeline)


def _is_tiny(model: Any) -> bool:
    """Return whether the model is an AutoencoderTiny, which takes the scheduler's latents
    unscaled."""
    return getattr(getattr(model, "config", None), "latent_magnitude", None) is not None


def _overflows(model: Any, pipeline: Any, like: Tensor) -> bool:
    """Return whether the pipeline itself would convert the VAE to float32 before it decodes.

    Most configurations have ``force_upcast`` by default, but only these pipelines use it.
    """
    half = str(like.dtype).lower().rpartition(".")[2] == "float16"
    heeded = hasattr(type(pipeline), "upcast_vae")
    return half and heeded and bool(getattr(model.config, "force_upcast", False))
