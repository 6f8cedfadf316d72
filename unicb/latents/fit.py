"""Colours for a VAE that there are none for: a linear map from its latents, by least squares."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from unicb.backend import Backend, backend_for
from unicb.errors import UnsupportedPipelineError
from unicb.latents._drawings import drawings
from unicb.latents.formats import LatentFormat, latent_channels_of, picture_channels_of

_Array: TypeAlias = npt.NDArray[Any]

#: Cells along each side of the pictures that are fitted on, unless told otherwise.
_CELLS = 16
#: Pixels along each side of the picture that tells how many pixels a cell has.
_PROBE = 64
#: Pictures that the VAE gets at once.
_CHUNK = 4


class Fit(NamedTuple):
    """A fitted format, and how well it does.

    Attributes:
        form: the format; ``fit.form.save("preview.toml")`` writes it.
        mean: Pearson's r of a preview with the VAE's full decode, averaged to the latents' size,
            over all cells and colours: the mean over pictures that were not fitted on.
        minimum: the least of these.
        samples: how many pictures were fitted on.
        held_out: how many were not.
    """

    form: LatentFormat
    mean: float
    minimum: float
    samples: int
    held_out: int


def fit_rgb_factors(
    pipeline: Any,
    images: Sequence[Any] | None = None,
    *,
    name: str = "fitted",
    samples: int = 48,
    held_out: int = 16,
    size: int | None = None,
    seed: int = 0,
) -> Fit:
    """Fit colours to the latents of a pipeline's VAE, by least squares with a bias.

    The latents are those that the sampler sees: scaled, shifted and normalised as the VAE's
    configuration (or its own statistics) says. The colours are the pictures', averaged to the
    latents' size. The VAE is called, and left as it is; nobody's random numbers are drawn, since
    the mean of what it encodes is taken. For VAEs of video, each picture is a video of one frame.

    Args:
        pipeline: has the VAE, as ``pipeline.vae``, and tells whose framework it is.
        images: pictures to fit on, if possible such as the pipeline makes: PIL images or
            ``numpy.uint8`` arrays ``[height, width, 3]``. Without them, smooth fields of colour
            with shapes on them are drawn.
        name: of the format.
        samples: how many pictures to draw and fit on. With ``images``, all but ``held_out``.
        held_out: how many more to measure on.
        size: width and height in pixels that pictures have, or get; a multiple of the VAE's
            pixels per cell. Without it, 16 cells.
        seed: of the drawings.

    Raises:
        UnsupportedPipelineError: the pipeline has no VAE of a kind that this can call; says why.
        ValueError: there are too few pictures, or the size is no multiple of a cell's.
        BackendNotFoundError, BackendLoadError: nobody owns the pipeline; see ``backend_for``.
    """
    coder = _Coder(backend_for(pipeline), pipeline)
    scale = coder.pixels_per_cell()
    edge = _CELLS * scale if size is None else size
    if edge < 2 * scale or edge % scale:
        raise ValueError(f"size must be a multiple of {scale} pixels, at least two, not {size}")
    if images is None:
        pictures, source = drawings(samples + held_out, edge, seed), f"drawings, seed {seed}"
    else:
        pictures, source = np.stack([_as_picture(image, edge) for image in images]), "pictures"
    count = len(pictures) - held_out
    if held_out < 1 or count < 1:
        raise ValueError(f"{len(pictures)} pictures cannot be fitted with {held_out} held out")

    latents, decoded = coder.latents_and_decoded(pictures, decode_from=count)
    factors, bias = _least_squares(latents[:count], _cells_of(pictures[:count], scale))
    r = _correlations(latents[count:] @ factors + bias, _cells_of(decoded, scale))
    measure = f"r with the full decode: mean {r.mean():.4f}, minimum {r.min():.4f}"
    vae = coder.vae
    form = LatentFormat(
        name=name,
        latent_channels=latents.shape[-1],
        spatial_scale=scale,
        factors=tuple((float(x), float(y), float(z)) for x, y, z in np.round(factors, 6)),
        bias=(float(round(bias[0], 6)), float(round(bias[1], 6)), float(round(bias[2], 6))),
        output_range=(-1.0, 1.0),
        source=f"least squares over {count} {source}; {measure} ({held_out} held out)",
        vae_classes=(type(vae).__name__,),
        **_identity(vae, latents.shape[-1]),
    )
    return Fit(form, float(r.mean()), float(r.min()), count, held_out)


def _identity(vae: Any, channels: int) -> dict[str, Any]:
    """What the VAE's configuration says of itself, as fields of a format."""
    found: dict[str, Any] = {}
    for field in ("scaling_factor", "shift_factor"):
        said = getattr(vae.config, field, None)
        if isinstance(said, int | float):
            found[f"vae_{field}"] = float(said)
    for field in ("latents_mean", "latents_std"):
        said = getattr(vae.config, field, None)
        if said is not None and len(said) == channels:
            found[f"vae_{field}"] = tuple(float(value) for value in said)
    return found


class _Coder:
    """A pipeline's VAE, called with numpy arrays."""

    def __init__(self, backend: Backend, pipeline: Any) -> None:
        self.vae: Any = getattr(pipeline, "vae", None)
        self._backend = backend
        self._owner = type(pipeline).__name__
        if not hasattr(self.vae, "encode") or not hasattr(self.vae, "decode"):
            raise UnsupportedPipelineError(f"{self._owner} has no VAE that encodes and decodes")
        self._like = next(iter(_parameters(self.vae)), None)
        if self._like is None:
            raise UnsupportedPipelineError(f"the VAE of this {self._owner} has no parameters")
        # The convolutions of an encoder of videos have one axis more.
        encoder = getattr(self.vae, "encoder", self.vae)
        self._video = any(len(value.shape) == 5 for value in _parameters(encoder))
        channels = picture_channels_of(self.vae) or 3
        if channels not in (3, 4):
            raise UnsupportedPipelineError(
                f"the VAE of this {self._owner} encodes pictures of {channels} channels, not RGB"
            )
        self._opaque = channels == 4

    def pixels_per_cell(self) -> int:
        encoded = self._encode(np.zeros((1, 3, _PROBE, _PROBE), np.float32))
        return _PROBE // int(encoded.shape[-1])

    def latents_and_decoded(self, pictures: _Array, decode_from: int) -> tuple[_Array, _Array]:
        """Latents ``[pictures, height, width, channels]`` as the sampler sees them; and of those
        from one index on, the full decodes ``[pictures, 3, height, width]``."""
        latents, decoded = [], []
        for start in range(0, len(pictures), _CHUNK):
            encoded = self._encode(pictures[start : start + _CHUNK])
            if start + encoded.shape[0] > decode_from:
                whole = self._picture(self._decode(encoded))
                decoded.append(whole[max(0, decode_from - start) :])
            latents.append(self._picture(encoded))
        seen = _as_the_sampler_sees(np.concatenate(latents), self.vae, self._backend)
        return seen.transpose(0, 2, 3, 1), np.concatenate(decoded)[:, :3]

    def _encode(self, pictures: _Array) -> Any:
        """The mean of what the VAE encodes, ``[pictures, channels, (1,) height, width]``."""
        if self._opaque:
            pictures = np.concatenate([pictures, np.ones_like(pictures[:, :1])], axis=1)
        if self._video:
            pictures = pictures[:, :, None]
        tensor = self._backend.ops.from_numpy(pictures, self._like)
        encoded = self.vae.encode(tensor, return_dict=False)[0]
        if not self._backend.is_tensor(encoded):
            return encoded.mode()  # a distribution
        channels = latent_channels_of(self.vae)
        if channels is not None and encoded.shape[1] == 2 * channels:
            return encoded[:, :channels]  # a distribution's means, and then its variances
        return encoded

    def _decode(self, encoded: Any) -> Any:
        takes = inspect.signature(self.vae.decode).parameters
        extra = {"num_frames": 1} if "num_frames" in takes else {}
        return self.vae.decode(encoded, return_dict=False, **extra)[0]

    def _picture(self, tensor: Any) -> _Array:
        """On the host, and without the axis of frames."""
        array = self._backend.ops.to_numpy(tensor).astype(np.float64)
        return array[:, :, 0] if array.ndim == 5 else array


def _parameters(model: Any) -> Iterator[Any]:
    # One framework's models call them so, the other's otherwise.
    for name in ("parameters", "get_parameters"):
        if hasattr(model, name):
            yield from getattr(model, name)()
            return


def _as_the_sampler_sees(latents: _Array, vae: Any, backend: Backend) -> _Array:
    """What pipelines make of encoded latents ``[pictures, channels, height, width]``."""
    statistics = getattr(vae, "bn", None)
    if statistics is not None:
        return _batch_normalised(latents, statistics, vae.config.batch_norm_eps, backend)
    scale = getattr(vae.config, "scaling_factor", None)
    scale = 1.0 if scale is None else float(scale)
    mean, std = (_numbers(vae, f"latents_{which}", backend) for which in ("mean", "std"))
    if mean is None or std is None:
        shift = getattr(vae.config, "shift_factor", None)
        return (latents - (0.0 if shift is None else float(shift))) * scale
    if len(mean) != latents.shape[1]:
        raise UnsupportedPipelineError(
            f"the {type(vae).__name__} has {len(mean)} means for {latents.shape[1]} channels"
        )
    return (latents - mean[:, None, None]) / std[:, None, None] * scale


def _numbers(vae: Any, name: str, backend: Backend) -> _Array | None:
    """What the VAE's configuration calls by that name, or what is a tensor of it."""
    said = getattr(vae.config, name, None)
    if said is not None:
        return np.asarray(said, dtype=np.float64).reshape(-1)
    if hasattr(vae.config, name):
        return None
    said = getattr(vae, name, None)
    return backend.ops.to_numpy(said).astype(np.float64) if backend.is_tensor(said) else None


def _batch_normalised(latents: _Array, statistics: Any, eps: float, backend: Backend) -> _Array:
    """As Flux 2 does: by the mean and variance of each channel of each of 2x2 cells."""
    mean = backend.ops.to_numpy(statistics.running_mean).astype(np.float64)
    var = backend.ops.to_numpy(statistics.running_var).astype(np.float64)
    count, channels, height, width = latents.shape
    cells = latents.reshape(count, channels, height // 2, 2, width // 2, 2)
    shape = (channels, 1, 2, 1, 2)
    mean, var = (x.reshape(channels, 2, 2)[:, None, :, None, :] for x in (mean, var))
    return ((cells - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps)).reshape(
        latents.shape
    )


def _as_picture(image: Any, edge: int) -> _Array:
    """``[3, edge, edge]``, -1 to 1, of a picture of any size."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    resized = picture.convert("RGB").resize((edge, edge), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1.0


def _cells_of(pictures: _Array, scale: int) -> _Array:
    """Pictures ``[n, 3, height, width]`` averaged to ``[n, height / scale, width / scale, 3]``."""
    n, colours, height, width = pictures.shape
    cells = pictures.reshape(n, colours, height // scale, scale, width // scale, scale)
    averaged: _Array = cells.mean(axis=(3, 5), dtype=np.float64).transpose(0, 2, 3, 1)
    return averaged


def _least_squares(latents: _Array, colours: _Array) -> tuple[_Array, _Array]:
    """Factors ``[channels, 3]`` and bias ``[3]``."""
    rows = latents.reshape(-1, latents.shape[-1])
    with_one = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    solution = np.linalg.lstsq(with_one, colours.reshape(-1, 3), rcond=None)[0]
    return solution[:-1], solution[-1]


def _correlations(previews: _Array, decoded: _Array) -> _Array:
    """Pearson's r of each preview with its decode, over all cells and colours."""
    a, b = (x.reshape(len(x), -1) for x in (previews, decoded))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    r: _Array = (a * b).sum(axis=1) / np.maximum(norms, 1e-12)
    return r
