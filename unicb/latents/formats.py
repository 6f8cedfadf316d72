"""Latent formats as data, and which one a pipeline has."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from unicb.errors import UnsupportedPipelineError
from unicb.pipelines import PipelineFacts

#: A checkpoint folder may carry its own format in a file of this name.
CHECKPOINT_FILE = "preview.toml"


@dataclass(frozen=True)
class LatentFormat:
    """A linear map from latents to colours: ``rgb = latents @ factors + bias`` over channels.

    It acts on latents as a callback sees them: in the space that the scheduler works in, shaped
    ``[batch, latent_channels, height / spatial_scale, width / spatial_scale]``.

    Attributes:
        name: what it is called.
        latent_channels: number of channels C.
        spatial_scale: pixels of the picture per latent cell, along each side.
        factors: C rows of (red, green, blue).
        bias: (red, green, blue).
        output_range: values of rgb that are black and white.
        source: where the figures come from.
        vae_scaling_factor: ``scaling_factor`` in the configuration of the VAE that the figures
            were fitted to; None if any will do.
    """

    name: str
    latent_channels: int
    spatial_scale: int
    factors: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float]
    output_range: tuple[float, float]
    source: str
    vae_scaling_factor: float | None = None

    def __post_init__(self) -> None:
        shape_is_right = len(self.factors) == self.latent_channels and len(self.bias) == 3
        if not shape_is_right or any(len(row) != 3 for row in self.factors):
            raise ValueError(
                f"latent format {self.name!r}: needs {self.latent_channels} rows of 3 factors and "
                f"3 biases, and has factors {self.factors} and bias {self.bias}"
            )

    @classmethod
    def from_mapping(cls, entry: Mapping[str, Any]) -> Self:
        """A format from the fields of a TOML table.

        Raises:
            ValueError: a field is missing, unknown or of the wrong size; names it.
        """
        known = {field.name for field in fields(cls)}
        required = known - {"vae_scaling_factor"}
        if missing := required - entry.keys():
            raise ValueError(f"latent format lacks: {', '.join(sorted(missing))}")
        if unknown := entry.keys() - known:
            raise ValueError(f"latent format has unknown fields: {', '.join(sorted(unknown))}")
        sequences = {
            "factors": tuple(tuple(row) for row in entry["factors"]),
            "bias": tuple(entry["bias"]),
            "output_range": tuple(entry["output_range"]),
        }
        return cls(**{**entry, **sequences})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a format from a TOML file with the fields above.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no TOML, or holds no format; names the file.
        """
        try:
            with open(path, "rb") as file:
                return cls.from_mapping(tomllib.load(file))
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error


@cache
def _builtin() -> Mapping[str, LatentFormat]:
    text = files("unicb.latents").joinpath("formats.toml").read_text(encoding="utf-8")
    return {
        name: LatentFormat.from_mapping({"name": name, **entry})
        for name, entry in tomllib.loads(text).items()
    }


def find_format(pipeline: Any, facts: PipelineFacts | None) -> LatentFormat:
    """The format of a pipeline's latents: its checkpoint's own, or that of its class.

    Raises:
        UnsupportedPipelineError: neither is known, or the pipeline's VAE is not the one that the
            figures for its class belong to.
        ValueError: the checkpoint's own file holds no format.
    """
    folder = getattr(pipeline, "name_or_path", None)
    if folder and (own := Path(folder, CHECKPOINT_FILE)).is_file():
        return LatentFormat.load(own)
    name = type(pipeline).__name__
    if facts is None or facts.latents is None:
        raise UnsupportedPipelineError(
            f"no preview for {name}: the format of its latents is not known. "
            "Pass Preview(factors=...) a LatentFormat, or a TOML file with one"
        )
    known = _builtin()[facts.latents]
    if mismatch := _vae_mismatch(pipeline, known):
        raise UnsupportedPipelineError(
            f"no preview for this {name}: its VAE has {mismatch}, so it is not the one that the "
            f"{known.name!r} colours were fitted to. Pass Preview(factors=...) a LatentFormat, "
            "or a TOML file with one"
        )
    return known


def _vae_mismatch(pipeline: Any, known: LatentFormat) -> str | None:
    config = getattr(getattr(pipeline, "vae", None), "config", None)
    if config is None:
        return None
    channels = getattr(config, "latent_channels", known.latent_channels)
    if channels != known.latent_channels:
        return f"{channels} latent channels instead of {known.latent_channels}"
    # AutoencoderTiny (known by its latent_magnitude) takes the scheduler's latents as they are.
    if known.vae_scaling_factor is None or getattr(config, "latent_magnitude", None) is not None:
        return None
    scale = getattr(config, "scaling_factor", known.vae_scaling_factor)
    if not math.isclose(scale, known.vae_scaling_factor, rel_tol=1e-3):
        return f"scaling factor {scale} instead of {known.vae_scaling_factor}"
    return None
