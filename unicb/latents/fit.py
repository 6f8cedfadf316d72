"""Fit a linear map from a VAE's latents to colours, by least squares."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from unicb.backend import Backend, backend_for
from unicb.checks import whole_number
from unicb.errors import UnsupportedPipelineError
from unicb.latents._decoding import decode, left_as_it_was
from unicb.latents._drawings import drawings
from unicb.latents._vae import (
    VAE_NAMES,
    Affine,
    affine_of,
    colour_channels,
    compute_like,
    is_of_video,
    latent_channels,
    offloading,
    pipeline_decoding,
    vae_decoding,
)
from unicb.latents.formats import LatentFormat

_Array: TypeAlias = npt.NDArray[Any]

#: Default number of cells along each side of the pictures to fit on.
_CELLS = 16
#: Pixels along each side of a picture that is encoded to find the size of a cell.
_PROBE = 64
#: How many pictures the VAE gets in one call.
_CHUNK = 4


class Fit(NamedTuple):
    """A fit is a fitted format, with measures of how well it fits.

    Attributes:
        form: the format; ``fit.save("preview.toml")`` writes it.
        mean: mean correlation over the held-out pictures. A picture's correlation is Pearson's r,
            over all cells and colours, between its preview and the VAE's full decode averaged to
            the latents' size.
        minimum: the smallest correlation of a held-out picture.
        samples: number of pictures that were fitted on.
        held_out: number of pictures that were held out to measure on.
    """

    form: LatentFormat
    mean: float
    minimum: float
    samples: int
    held_out: int

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the format to a TOML file; see :meth:`LatentFormat.save`.

        Raises:
            OSError: the file cannot be written.
        """
        self.form.save(path)


def fit_rgb_factors(
    vae: Any,
    images: Sequence[Any] | None = None,
    *,
    name: str = "fitted",
    samples: int = 48,
    held_out: int = 16,
    size: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> Fit:
    """Fit colours to the latents of a VAE, by least squares with a bias.

    The latents are those that the sampler sees: scaled, shifted and normalised as the VAE's
    configuration (or its own statistics) says. The colours are the pictures', averaged to the
    latents' size. The VAE is called and not changed; no gradients are recorded, and no random
    numbers are drawn, since the mean of the encoded distribution is taken. For a video VAE, each
    picture is a video of one frame, or of as many equal frames as the VAE needs.

    Args:
        vae: a model of diffusers or mindone that encodes and decodes; or a pipeline that has one,
            whose class may scale latents in its own way.
        images: pictures to fit on, at best like those that the pipeline makes: PIL images or
            ``numpy.uint8`` arrays ``[height, width, 3]``. None: smooth fields of colour with shapes
            are drawn.
        name: the format's name.
        samples: number of pictures to draw and fit on. With ``images``, all but ``held_out`` of
            them are fitted on.
        held_out: number of further pictures to measure on.
        size: width and height of the pictures in pixels, to which ``images`` are resized; a
            multiple of the VAE's pixels per cell. None: 16 cells.
        seed: the seed of the drawings.
        progress: a function called with the number of pictures done and the number of all.

    Raises:
        UnsupportedPipelineError: the VAE is of no kind that this can call, its weights are not in
            memory, its output is not finite, or the pipeline has no VAE; the message says why.
        TypeError: a number is no int.
        ValueError: there are too few pictures, ``size`` is no multiple of a cell's size, or a
            number is out of range.
        BackendNotFoundError, BackendLoadError: no backend owns the VAE; see ``backend_for``.

    Example:
        >>> fit = fit_rgb_factors(pipe.vae)
        >>> fit.minimum > 0.99  # the correlation of colours that were not fitted on
        True
        >>> callbacks = bind(pipe, Preview(lambda frame: None, factors=fit.form))
    """
    samples, held_out = whole_number("samples", samples), whole_number("held_out", held_out)
    size = None if size is None else whole_number("size", size)
    seed = whole_number("seed", seed, least=0)
    backend = backend_for(vae)
    coder = _Coder(backend, vae)
    kept = vae_decoding(coder.vae).kept
    with backend.fork_rng(), left_as_it_was(coder.vae, kept), _offloaded_again(coder.vae):
        return _fit(coder, images, name, samples, held_out, size, seed, progress)


def _fit(
    coder: _Coder,
    images: Sequence[Any] | None,
    name: str,
    samples: int,
    held_out: int,
    size: int | None,
    seed: int,
    progress: Callable[[int, int], object] | None,
) -> Fit:
    scale, unit = coder.pixels_per_cell()
    edge = max(_CELLS * scale, coder.least_edge) if size is None else size
    if edge < max(2 * scale, coder.least_edge) or edge % unit:
        least = f"{coder.least_edge} pixels" if coder.least_edge else "two"
        raise ValueError(f"size must be a multiple of {unit} pixels, at least {least}, not {size}")
    if images is None:
        pictures, source = drawings(samples + held_out, edge, seed), f"drawings, seed {seed}"
    else:
        pictures, source = np.stack([_as_picture(image, edge) for image in images]), "pictures"
    count = len(pictures) - held_out
    if count < 1:
        raise ValueError(f"{len(pictures)} pictures cannot be fitted with {held_out} held out")

    latents, decoded = coder.latents_and_decoded(pictures, decode_from=count, progress=progress)
    if not (np.isfinite(latents).all() and np.isfinite(decoded).all()):
        raise UnsupportedPipelineError(
            f"the {type(coder.vae).__name__} makes numbers that are not finite of pictures, in "
            f"{coder.dtype}: load it in float32, or one that does not overflow"
        )
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
    """Read the fields of a format that identify the VAE from its configuration."""
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
    """A coder encodes and decodes numpy arrays with a VAE.

    Args:
        backend: the backend of the VAE's framework.
        owner: the VAE, or a pipeline that has it.
    """

    def __init__(self, backend: Backend, owner: Any) -> None:
        self.vae = vae_of(owner)
        self._backend = backend
        self._pipeline = None if self.vae is owner else owner
        kind = type(self.vae).__name__
        self._about = vae_decoding(self.vae)
        self._like = compute_like(self.vae)
        if self._like is None:
            raise UnsupportedPipelineError(f"the {kind} has no parameters of a floating dtype")
        if str(getattr(self._like, "device", "")) == "meta":
            raise UnsupportedPipelineError(
                f"the weights of the {kind} are not in memory: it is offloaded layer by layer. Fit "
                "before that is enabled, fit_rgb_factors(pipe).save('preview.toml'), and pass "
                "Preview(factors='preview.toml')"
            )
        # A VAE with tiles of several frames encodes nothing smaller than a tile.
        self._tile: tuple[int, ...] = ()
        if self._about.whole:
            self._tile = tuple(getattr(self.vae, "kernel", ()))
            if not self._tile:
                raise UnsupportedPipelineError(
                    f"the {kind} encodes videos alone, no single picture"
                )
        #: The least number of pixels along a side of a picture.
        self.least_edge: int = max(self._tile[1:], default=0)
        self._video = is_of_video(self.vae)
        channels, about = colour_channels(self.vae), pipeline_decoding(self._pipeline)
        if about.refused:
            raise UnsupportedPipelineError(
                f"no colours can be fitted for {type(owner).__name__}: {about.refused}"
            )
        if channels not in (3, 4) and not (about.more_than_colours and channels > 3):
            raise UnsupportedPipelineError(
                f"the {kind} encodes pictures of {channels} channels, not RGB"
            )
        self._opaque, self._depths = channels == 4, channels - 3 if channels > 4 else 0

    @property
    def dtype(self) -> str:
        """Return the name of the dtype that the VAE computes in."""
        return str(getattr(self._like, "dtype", "")).rpartition(".")[2]

    def pixels_per_cell(self) -> tuple[int, int]:
        """Return the pixels along a cell's side, and the number of which a picture's side has to be
        a multiple."""
        probe = max(_PROBE, self.least_edge)
        encoded = self._encode(np.zeros((1, 3, probe, probe), np.float32))
        scale = probe // int(encoded.shape[-1])
        return scale, scale * self._affine(int(encoded.shape[1])).scale.shape[-1]

    def latents_and_decoded(
        self,
        pictures: _Array,
        decode_from: int,
        progress: Callable[[int, int], object] | None = None,
    ) -> tuple[_Array, _Array]:
        """Encode pictures to the sampler's latents ``[pictures, height, width, channels]``, and
        decode those from index ``decode_from`` on to ``[pictures, 3, height, width]``."""
        latents, decoded = [], []
        low, high = self._about.output_range
        chunk = 1 if self._tile else _CHUNK
        for start in range(0, len(pictures), chunk):
            encoded = self._encode(pictures[start : start + chunk])
            if start + encoded.shape[0] > decode_from:
                whole = decode(self.vae, encoded, 1, self._backend.ops)
                whole = self._picture(whole.swapaxes(1, 2) if self._about.frames_first else whole)
                decoded.append(whole[max(0, decode_from - start) :])
            latents.append(self._picture(encoded))
            if progress is not None:
                progress(min(start + chunk, len(pictures)), len(pictures))
        joined = np.concatenate(latents)
        seen = self._affine(joined.shape[1]).to_sampler(joined)
        colours = np.concatenate(decoded)[:, :3]
        return seen.transpose(0, 2, 3, 1), (colours - low) / (high - low) * 2 - 1

    def _affine(self, channels: int) -> Affine:
        return affine_of(self.vae, self._backend, channels, self._pipeline)

    def _encode(self, pictures: _Array) -> Any:
        """Return the mean of the encoded distribution,
        ``[pictures, channels, (frames,) height, width]``."""
        low, high = self._about.output_range
        pictures = (pictures + 1) / 2 * (high - low) + low
        if self._opaque:
            pictures = np.concatenate([pictures, np.full_like(pictures[:, :1], high)], axis=1)
        if self._depths:  # constant, so that the depth says nothing about the colours
            depth = pictures[:, :, ::-1, ::-1].mean(axis=1, keepdims=True)
            pictures = np.concatenate([pictures, *[depth] * self._depths], axis=1)
        if self._video:
            pictures = pictures[:, :, None]
        if self._tile:  # a video of equal frames
            pictures = pictures.repeat(self._tile[0], axis=2)
            self.vae.use_tiling = True  # put back with all other attributes
        tensor = self._backend.ops.from_numpy(pictures.astype(np.float32), self._like)
        if (hook := offloading(self.vae)) is not None:
            tensor = hook.pre_forward(self.vae, tensor)[0][0]  # both on its device now
        encoded = self.vae.encode(tensor, return_dict=False)[0]
        if not self._backend.is_tensor(encoded):
            return encoded.mode()  # encoded is a distribution
        channels = latent_channels(self.vae)
        if channels is not None and encoded.shape[1] == 2 * channels:
            return encoded[:, :channels]  # means come first, then variances
        return encoded

    def _picture(self, tensor: Any) -> _Array:
        """Return the picture on the host; for a video, its middle frame."""
        array = self._backend.ops.to_numpy(tensor).astype(np.float64)
        return array[:, :, array.shape[2] // 2] if array.ndim == 5 else array


@contextmanager
def _offloaded_again(vae: Any) -> Iterator[None]:
    """Move an offloaded VAE off the device again after the block."""
    try:
        yield
    finally:
        if (hook := offloading(vae)) is not None:
            hook.init_hook(vae)


def vae_of(owner: Any) -> Any:
    """Return the object itself if it encodes and decodes, or its attribute that does."""
    parts = (getattr(owner, name, None) for name in VAE_NAMES)
    for vae in (owner, *parts):
        if hasattr(vae, "encode") and hasattr(vae, "decode"):
            return vae
    raise UnsupportedPipelineError(
        f"{type(owner).__name__} is no VAE, and has no VAE that encodes and decodes"
    )


def _as_picture(image: Any, edge: int) -> _Array:
    """Turn a picture of any size into ``[3, edge, edge]`` in -1..1."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    resized = picture.convert("RGB").resize((edge, edge), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1.0


def _cells_of(pictures: _Array, scale: int) -> _Array:
    """Average pictures ``[n, 3, height, width]`` to ``[n, height / scale, width / scale, 3]``."""
    n, colours, height, width = pictures.shape
    cells = pictures.reshape(n, colours, height // scale, scale, width // scale, scale)
    averaged: _Array = cells.mean(axis=(3, 5), dtype=np.float64).transpose(0, 2, 3, 1)
    return averaged


def _least_squares(latents: _Array, colours: _Array) -> tuple[_Array, _Array]:
    """Compute factors ``[channels, 3]`` and bias ``[3]``, by least squares."""
    rows = latents.reshape(-1, latents.shape[-1])
    with_one = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    solution = np.linalg.lstsq(with_one, colours.reshape(-1, 3), rcond=None)[0]
    return solution[:-1], solution[-1]


def _correlations(previews: _Array, decoded: _Array) -> _Array:
    """Compute Pearson's r of each preview with its decode, over all cells and colours."""
    a, b = (x.reshape(len(x), -1) for x in (previews, decoded))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    r: _Array = (a * b).sum(axis=1) / np.maximum(norms, 1e-12)
    return r
