"""Describe latent formats as data, and find the one that a pipeline has."""

from __future__ import annotations

import json
import math
import os
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Self

from unicb._tables import Tables
from unicb.errors import UnsupportedPipelineError
from unicb.latents.layouts import layout_of
from unicb.pipelines import PipelineFacts

#: A checkpoint folder may carry its own format in a file of this name.
CHECKPOINT_FILE = "preview.toml"
#: The format of latents that are the picture itself.
PIXELS = "pixels"
#: Further names of formats: the models that use them.
_ALSO_CALLED = {
    "sd15": "sd",
    "sd1": "sd",
    "sd2": "sd",
    "sd21": "sd",
    "sd35": "sd3",
    "flux1": "flux",
}


@dataclass(frozen=True)
class LatentFormat:
    """A latent format is a linear map from latents to colours: ``rgb = latents @ factors + bias``
    over channels.

    It acts on latents as a callback sees them, in the scheduler's space, with
    ``latent_channels`` numbers for each cell of ``spatial_scale`` by ``spatial_scale`` pixels.
    A :class:`unicb.latents.Layout` says where in a tensor these are.

    The fields that start with ``vae_`` identify the VAE to which the figures were fitted. None, or
    an empty tuple, allows any value.

    Attributes:
        name: the format's name.
        latent_channels: number of channels C.
        spatial_scale: pixels of the picture per latent cell, along each side.
        factors: C rows of (red, green, blue).
        bias: (red, green, blue).
        output_range: the rgb values of black and white, such as (-1.0, 1.0).
        source: where the figures come from.
        vae_scaling_factor: ``scaling_factor`` in the VAE's configuration.
        vae_shift_factor: ``shift_factor`` in the VAE's configuration; 0 if it has none.
        vae_latents_mean: ``latents_mean`` in the VAE's configuration, C numbers.
        vae_latents_std: ``latents_std`` in the VAE's configuration, C numbers.
        vae_classes: names of the classes that the VAE may have.

    Example:
        >>> grey = LatentFormat(
        ...     name="the mean of four channels, as grey",
        ...     latent_channels=4,
        ...     spatial_scale=8,
        ...     factors=((0.25, 0.25, 0.25),) * 4,
        ...     bias=(0.0, 0.0, 0.0),
        ...     output_range=(-1.0, 1.0),
        ...     source="an example",
        ... )
        >>> image = bind(pipe, Preview(lambda frame: None, factors=grey))("a red star")[0]
    """

    name: str
    latent_channels: int
    spatial_scale: int
    factors: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float]
    output_range: tuple[float, float]
    source: str
    vae_scaling_factor: float | None = None
    vae_shift_factor: float | None = None
    vae_latents_mean: tuple[float, ...] | None = None
    vae_latents_std: tuple[float, ...] | None = None
    vae_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape_is_right = len(self.factors) == self.latent_channels and len(self.bias) == 3
        if not shape_is_right or any(len(row) != 3 for row in self.factors):
            raise ValueError(
                f"latent format {self.name!r}: needs {self.latent_channels} rows of 3 factors and "
                f"3 biases, and has factors {self.factors} and bias {self.bias}"
            )
        for field in ("vae_latents_mean", "vae_latents_std"):
            numbers = getattr(self, field)
            if numbers is not None and len(numbers) != self.latent_channels:
                raise ValueError(
                    f"latent format {self.name!r}: {field} needs {self.latent_channels} numbers, "
                    f"not {len(numbers)}"
                )

    @classmethod
    def from_mapping(cls, entry: Mapping[str, Any]) -> Self:
        """Make a format from the fields of a TOML table.

        Raises:
            ValueError: a field is missing, unknown or of the wrong size; the message names it.
        """
        known = {field.name: field for field in fields(cls)}
        required = {name for name, field in known.items() if field.default is MISSING}
        if missing := required - entry.keys():
            raise ValueError(f"latent format lacks: {', '.join(sorted(missing))}")
        if unknown := entry.keys() - known.keys():
            raise ValueError(f"latent format has unknown fields: {', '.join(sorted(unknown))}")
        return cls(**{name: _frozen(value) for name, value in entry.items()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a format from a TOML file with this class's fields.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is no TOML, or holds no format; the message names the file.
        """
        try:
            with open(path, "rb") as file:
                return cls.from_mapping(tomllib.load(file))
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a TOML file that :meth:`load` reads back as an equal format.

        A checkpoint's folder with this file in it, called ``preview.toml``, brings its own colours.

        Raises:
            OSError: the file cannot be written.
        """
        Path(path).write_text(self.to_toml(), encoding="utf-8")

    def to_toml(self) -> str:
        """Return the format as the text of a TOML file."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        lines = [f"{name} = {_toml(value)}\n" for name, value in values if value not in (None, ())]
        return "".join(lines)


def _frozen(value: Any) -> Any:
    """Turn TOML's lists into tuples, also nested ones."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _toml(value: Any) -> str:
    """Return a string, a number, or a sequence of these as TOML."""
    if isinstance(value, str):
        # A JSON string is a TOML string, except for one character that TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Sequence):
        items = [_toml(item) for item in value]
        if value and not isinstance(value[0], str | int | float):
            return "[\n" + "".join(f"  {item},\n" for item in items) + "]"
        return "[" + ", ".join(items) + "]"
    return repr(value) if isinstance(value, int) else repr(float(value))


@cache
def builtin_formats() -> Mapping[str, LatentFormat]:
    """Return unicb's own formats, by name."""
    return Tables("unicb.latents", "formats.toml", _from_entry)


def _from_entry(name: str, entry: dict[str, Any]) -> LatentFormat:
    return LatentFormat.from_mapping({"name": name, **entry})


_INSTEAD = (
    "Preview(factors='fit') fits colours to its VAE, once, and keeps them; "
    "unicb.latents.fit_rgb_factors(pipe) gives them to look at and to save, for factors= a "
    "LatentFormat or a TOML file; decoder='vae' shows full pictures, and decoder= takes a function "
    "of yours where there is no VAE"
)


def named_format(name: str) -> LatentFormat | None:
    """Return the format with this name, such as ``"sdxl"``, or of a model with this name, such as
    ``"sd15"``; None if there is none."""
    return builtin_formats().get(_ALSO_CALLED.get(name.lower(), name.lower()))


def load_format(path: str | os.PathLike[str]) -> LatentFormat:
    """Return the format with this name, or else the format in the TOML file at this path.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file holds no format; or ``path`` names neither a format nor a file.
    """
    if isinstance(path, str):
        if (found := named_format(path)) is not None:
            return found
        if not (os.path.splitext(path)[1] or os.path.dirname(path) or os.path.exists(path)):
            raise ValueError(
                f"factors={path!r} is no format and no file. Write 'fit', the name of a format "
                f"({', '.join(builtin_formats())}), or the path of a TOML file with one"
            )
    return LatentFormat.load(path)


def find_format(pipeline: Any, facts: PipelineFacts | None) -> LatentFormat:
    """Return the format of a pipeline's latents: the one in its checkpoint's ``preview.toml``, or
    that of its class, or that of its VAE.

    A class may be published with several VAEs, and users may exchange the VAE. So if the class has
    no format, or one for another VAE, the pipeline's VAE is looked up: by its class and by the
    entries of its configuration in which known formats differ.

    Raises:
        UnsupportedPipelineError: no format is known, or the pipeline's latents are no picture and
            no video.
        ValueError: the checkpoint's own file holds no format.
    """
    name = type(pipeline).__name__
    layout_of(pipeline, facts)
    folder = getattr(pipeline, "name_or_path", None)
    if folder and (own := Path(folder, CHECKPOINT_FILE)).is_file():
        return LatentFormat.load(own)
    known = None if facts is None or facts.latents is None else builtin_formats()[facts.latents]
    vae = getattr(pipeline, "vae", None)
    mismatch = None if known is None else vae_mismatch(vae, known)
    if known is not None and mismatch is None:
        return known
    if facts is not None and (found := format_of_vae(vae)):
        return found
    if known is None:
        raise UnsupportedPipelineError(
            f"no preview for {name}: the format of its latents is not known. {_INSTEAD}"
        )
    raise UnsupportedPipelineError(
        f"no preview for this {name}: its VAE has {mismatch}, so it is not the one that the "
        f"{known.name!r} colours were fitted to. {_INSTEAD}"
    )


def format_of_vae(vae: Any) -> LatentFormat | None:
    """Return the known format of a VAE with this class and configuration; None if there is none."""
    kind = type(vae).__name__
    for form in builtin_formats().values():
        if kind in form.vae_classes and vae_mismatch(vae, form) is None:
            return form
    return None


def latent_channels_of(vae: Any) -> int | None:
    """Read a VAE's ``latent_channels`` or ``z_dim`` from its configuration; None if it has
    neither."""
    config = getattr(vae, "config", None)
    said = getattr(config, "latent_channels", None)
    found: int | None = getattr(config, "z_dim", None) if said is None else said
    return found


def check_is_for(form: LatentFormat, pipeline: Any) -> None:
    """Check that a format that the user names is for the pipeline's VAE; warn if it is for another
    VAE with the same number of channels.

    Raises:
        UnsupportedPipelineError: the pipeline's latents have another number of channels.
    """
    from unicb.latents._vae import VAE_NAMES

    found = (getattr(pipeline, name, None) for name in VAE_NAMES)
    vae = next((one for one in found if one is not None), None)
    mismatch = vae_mismatch(vae, form)
    if mismatch is None:
        return
    differs = f"the colours of {form.name!r} were fitted to another VAE than this "
    differs += f"{type(pipeline).__name__} has, which has {mismatch}"
    if latent_channels_of(vae) not in (None, form.latent_channels):
        raise UnsupportedPipelineError(f"{differs}; Preview(factors='fit') fits colours to it")
    warnings.warn(
        f"{differs}: they may show other colours; Preview(factors='fit') fits its own",
        RuntimeWarning,
        stacklevel=2,
    )


def vae_mismatch(vae: Any, known: LatentFormat) -> str | None:
    """Return in words how the VAE differs from the format's; None if it does not."""
    config = getattr(vae, "config", None)
    if config is None:
        return None
    channels = latent_channels_of(vae)
    if channels not in (None, known.latent_channels):
        return f"{channels} latent channels instead of {known.latent_channels}"
    if (pictures := picture_channels_of(vae)) not in (None, 3):
        return f"pictures of {pictures} channels instead of 3"
    # AutoencoderTiny (recognised by latent_magnitude) takes the scheduler's latents unscaled.
    if getattr(config, "latent_magnitude", None) is not None:
        return None
    for field in ("scaling_factor", "shift_factor"):
        wanted = getattr(known, f"vae_{field}")
        default = 0.0 if field == "shift_factor" else wanted
        said = getattr(config, field, default)
        said = default if said is None else said
        if wanted is not None and not math.isclose(said, wanted, rel_tol=1e-3, abs_tol=1e-6):
            return f"{field.replace('_', ' ')} {said} instead of {wanted}"
    for field in ("latents_mean", "latents_std"):
        wanted = getattr(known, f"vae_{field}")
        if wanted is None and known.vae_scaling_factor is not None:
            wanted = ()  # its latents are scaled by scaling_factor only
        said = getattr(config, field, None)
        if wanted is not None and said is not None and not _close(said, wanted):
            return f"another {field} in its configuration"
    return None


def picture_channels_of(vae: Any) -> int | None:
    """Return the number of channels of the pictures that a VAE encodes, such as 3 for RGB; None if
    it does not say."""
    config = getattr(vae, "config", None)
    said = getattr(config, "in_channels", getattr(config, "input_channels", None))
    patch = getattr(config, "patch_size", None)
    if isinstance(said, int) and isinstance(patch, int) and said % (3 * patch * patch) == 0:
        return said // (patch * patch)  # the count includes the pixels of a patch
    return said if isinstance(said, int) else None


def _close(said: Sequence[float], wanted: Sequence[float]) -> bool:
    pairs = zip(said, wanted, strict=False)
    same = (math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) for a, b in pairs)
    return len(said) == len(wanted) and all(same)
