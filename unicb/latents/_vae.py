"""Read a VAE's configuration, and how a pipeline scales the latents that the VAE encodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from unicb._tables import FactTable
from unicb.backend import Backend
from unicb.errors import UnsupportedPipelineError
from unicb.latents.formats import latent_channels_of
from unicb.ops import Tensor
from unicb.pipelines import facts_for

#: Names of pipelines' attributes with the model that decodes their latents.
VAE_NAMES = ("vae", "movq", "vqgan", "vqvae")
INSTEAD = (
    "Leave decoder= out for colours of the latents, or pass a model or a function that decodes them"
)

_Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class PipelineDecoding:
    """``PipelineDecoding`` says how a pipeline class decodes, if it differs from its VAE's
    configuration.

    Attributes:
        source: where this was read.
        times_sigma_data: True: the latents are multiplied by the scheduler's ``sigma_data``.
        unscaled: True: the VAE's ``scaling_factor`` is not used.
        separate_frames: True: each latent frame is decoded as a picture by itself.
        first_frame: index of the first generated latent frame; frames before it are given.
        more_than_colours: True: the VAE decodes further channels after the colours.
        refused: why the VAE cannot decode the latents directly; empty if it can.
    """

    source: str = ""
    times_sigma_data: bool = False
    unscaled: bool = False
    separate_frames: bool = False
    first_frame: int = 0
    more_than_colours: bool = False
    refused: str = ""


@dataclass(frozen=True)
class VAEDecoding:
    """``VAEDecoding`` says in what a class of VAEs differs from the usual.

    Attributes:
        source: where this was read.
        unscaled: True: its ``scaling_factor`` is not used.
        multiplied_by: name, in its configuration, of a factor by which latents are multiplied
            before decoding; usually they are divided by ``scaling_factor``.
        output_range: the values of black and white in its output.
        of_video: True: the VAE takes an axis of frames, although its convolutions do not show that.
        frames_first: True: the VAE decodes to ``[rows, frames, colours, height, width]``.
        whole: True: the VAE cannot decode a single latent frame of a video.
        kept: names of attributes in which its layers keep features of earlier frames.
    """

    source: str = ""
    unscaled: bool = False
    multiplied_by: str = ""
    output_range: tuple[float, float] = (-1.0, 1.0)
    of_video: bool = False
    frames_first: bool = False
    whole: bool = False
    kept: tuple[str, ...] = ()


@cache
def known_decodings() -> FactTable[PipelineDecoding]:
    """Return the facts about the pipeline classes in the data file."""
    return FactTable("unicb.latents", "decoding.toml", PipelineDecoding)


@cache
def known_vaes() -> FactTable[VAEDecoding]:
    """Return the facts about the classes of VAEs in the data file."""
    return FactTable("unicb.latents", "vaes.toml", VAEDecoding)


def pipeline_decoding(pipeline: object) -> PipelineDecoding:
    """Return the facts about the pipeline's class, or its nearest base with facts; else the
    defaults."""
    return known_decodings().about(type(pipeline)) or PipelineDecoding()


def vae_decoding(vae: object) -> VAEDecoding:
    """Return the facts about the VAE's class, or its nearest base with facts; else the defaults."""
    return known_vaes().about(type(vae)) or VAEDecoding()


def parameters_of(model: Any) -> Iterator[Tensor]:
    # torch's models and MindSpore's have different names for this.
    for name in ("parameters", "get_parameters"):
        if hasattr(model, name):
            yield from getattr(model, name)()
            return


def compute_like(model: Any) -> Tensor | None:
    """Return a parameter with the dtype and the device in which the model computes; None if it has
    none."""
    for value in parameters_of(model):
        dtype = str(value.dtype).lower()
        # 8-bit weights are for storage: each layer widens them to compute.
        if "float" in dtype and "float8" not in dtype:
            return value
    return None


def is_of_video(vae: Any) -> bool:
    """Return whether the VAE takes an axis of frames, which shows in three-dimensional
    convolutions."""
    encoder = getattr(vae, "encoder", vae)
    return vae_decoding(vae).of_video or any(
        len(value.shape) == 5 for value in parameters_of(encoder)
    )


def latent_channels(vae: Any) -> int | None:
    """Return the number of channels of the VAE's latents; None if its configuration does not
    say."""
    said = latent_channels_of(vae)
    if said is None:
        said = getattr(getattr(vae, "config", None), "z_channels", None)
    return said if isinstance(said, int) else None


def colour_channels(vae: Any) -> int:
    """Return the number of channels of the pictures that the VAE decodes; 3 (RGB) if it does not
    say."""
    config = getattr(vae, "config", None)
    # out_channels first: Mochi's in_channels counts features that it computes from the colours.
    names = ("out_channels", "in_channels", "input_channels")
    said = (getattr(config, name, None) for name in names)
    channels = next((value for value in said if isinstance(value, int)), 3)
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, int) and channels % (3 * patch * patch) == 0:
        return channels // (patch * patch)  # the count includes the pixels of a patch
    return channels


def offloading(model: Any) -> Any:
    """Return accelerate's hook that offloads the model; None if the model is not offloaded."""
    hook = getattr(model, "_hf_hook", None)
    # A hook that only moves the inputs has `offload` False.
    return hook if getattr(hook, "offload", hook is not None) else None


def refuse_offloaded(model: Any) -> None:
    """Raise if a call of the model would move models between devices during the denoising.

    Raises:
        UnsupportedPipelineError: a hook of accelerate offloads the model.
    """
    if offloading(model) is not None:
        raise UnsupportedPipelineError(
            f"no preview by this {type(model).__name__}, which is offloaded: a call would take the "
            f"denoiser from the device in the middle of the run. {INSTEAD} and is not offloaded"
        )


class Affine(NamedTuple):
    """An affine map ``encoded = latents * scale + offset`` turns the sampler's latents into the
    VAE's.

    Attributes:
        scale, offset: ``numpy.float64`` ``[channels, frames, edge, edge]``. ``frames`` is 1 if all
            frames have the same values, and ``edge`` is 2 if each of 2x2 cells has its own, else 1.
    """

    scale: _Array
    offset: _Array

    @property
    def is_identity(self) -> bool:
        return bool((self.scale == 1).all() and (self.offset == 0).all())

    def frames(self, start: int, stop: int) -> Affine:
        """Return the map for the latent frames ``start`` to ``stop``."""
        if self.scale.shape[1] == 1:
            return self
        return Affine(self.scale[:, start:stop], self.offset[:, start:stop])

    def to_sampler(self, encoded: _Array) -> _Array:
        """Turn encoded pictures ``[pictures, channels, height, width]``, each a first frame, into
        the sampler's latents."""
        edge, shape = self.scale.shape[-1], encoded.shape
        split = (shape[0], shape[1], shape[2] // edge, edge, shape[3] // edge, edge)
        scale, offset = (x[:, 0, None, :, None, :] for x in self)
        return ((encoded.reshape(split) - offset) / scale).reshape(shape)

    def is_close_to(self, other: Affine) -> bool:
        """Return whether both maps are equal up to the rounding of numbers in configurations."""
        return all(
            a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-4)
            for a, b in zip(self, other, strict=True)
        )


def affine_of(vae: Any, backend: Backend, channels: int, pipeline: Any = None) -> Affine:
    """Return the map of a VAE, as the frameworks' pipelines apply it.

    Args:
        vae: the VAE, whose configuration or weights have the numbers.
        backend: the backend of its framework.
        channels: number of channels of its latents.
        pipeline: a pipeline that decodes with it, whose class may scale otherwise; or None.

    Raises:
        UnsupportedPipelineError: the VAE's number of means is not its number of channels.
    """
    about = pipeline_decoding(pipeline)
    if getattr(vae, "bn", None) is not None:
        facts = None if pipeline is None else facts_for(pipeline)
        last = facts is not None and facts.layout.endswith("(pqc)")
        scale, offset = _of_cells(vae, backend, channels, channels_last=last)
    else:
        scale, offset = _of_channels(vae, backend, channels, about.unscaled)
    if about.times_sigma_data:
        scale = scale / float(pipeline.scheduler.config.sigma_data)
    return Affine(scale, offset)


def _of_cells(
    vae: Any, backend: Backend, channels: int, channels_last: bool
) -> tuple[_Array, _Array]:
    """Return scale and offset of Flux 2's VAE, which normalises the channels of 2x2 cells together,
    in the order in which the pipeline packs them."""

    def in_order(statistics: _Array) -> _Array:
        if channels_last:
            return statistics.reshape(2, 2, channels).transpose(2, 0, 1)[:, None]
        return statistics.reshape(channels, 1, 2, 2)

    mean = backend.ops.to_numpy(vae.bn.running_mean).astype(np.float64)
    var = backend.ops.to_numpy(vae.bn.running_var).astype(np.float64)
    return in_order(np.sqrt(var + vae.config.batch_norm_eps)), in_order(mean)


def _of_channels(
    vae: Any, backend: Backend, channels: int, unscaled: bool
) -> tuple[_Array, _Array]:
    factor = _factor(vae, unscaled)
    both = tuple(_numbers(vae, f"latents_{which}", backend) for which in ("mean", "std"))
    if both[0] is None or both[1] is None:
        shift = getattr(vae.config, "shift_factor", None)
        whole = np.ones((channels, 1, 1, 1))
        return whole * factor, whole * (0.0 if shift is None else float(shift))
    counts = [len(numbers) for numbers in both if numbers is not None]
    # Cosmos 1 has means and deviations for each frame.
    if any(n != channels and (n % channels or not is_of_video(vae)) for n in counts):
        raise UnsupportedPipelineError(
            f"the {type(vae).__name__} has {counts[0]} means for {channels} channels"
        )
    mean, std = (numbers.reshape(channels, -1, 1, 1) for numbers in both if numbers is not None)
    return std * factor, mean


def _factor(vae: Any, unscaled: bool) -> float:
    about = vae_decoding(vae)
    if about.multiplied_by:
        return float(getattr(vae.config, about.multiplied_by))
    scaling = getattr(vae.config, "scaling_factor", None)
    return 1.0 if scaling is None or unscaled or about.unscaled else 1.0 / float(scaling)


def _numbers(vae: Any, name: str, backend: Backend) -> _Array | None:
    """Return the VAE's numbers of this name, from its configuration or from a tensor attribute;
    None if it has neither."""
    said = getattr(vae.config, name, None)
    if said is not None:
        return np.asarray(said, dtype=np.float64).reshape(-1)
    if hasattr(vae.config, name):
        return None
    said = getattr(vae, name, None)
    if not backend.is_tensor(said):
        return None
    return backend.ops.to_numpy(said).astype(np.float64).reshape(-1)
