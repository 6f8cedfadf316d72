"""Fit colours to a pipeline's VAE, and keep them in a file for the next time."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import math
import os
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unicb.backend import Backend
from unicb.latents._vae import latent_channels, parameters_of, pipeline_decoding
from unicb.latents.fit import Fit, fit_rgb_factors, vae_of
from unicb.latents.formats import PIXELS, LatentFormat, builtin_formats
from unicb.pipelines import facts_for

#: Version of the files and of the fitting; a new number makes everything be fitted again.
_VERSION = 2
#: How many values of each parameter identify a VAE.
_SAMPLED = 4096
#: How many pictures to fit on, at least: with more, seconds grow to minutes on a CPU, and colours
#: are hardly better (docs/latents.md).
_PICTURES = 12
#: Pearson's r with the full decode below which a preview shows little.
_POOR = 0.6


def fitted_format(pipeline: Any, backend: Backend) -> LatentFormat:
    """Return a format for the latents of a pipeline's VAE, fitted by :func:`fit_rgb_factors` or
    kept from before.

    It is kept in a file: beside the checkpoint if the pipeline is from a folder that can be written
    to, and else in the user's cache: ``$XDG_CACHE_HOME/unicb``, or the system's equivalent. The
    file is used again for a VAE of the same class, configuration, dtype and weights (of which 4096
    values of each parameter are compared). If no file can be written, a warning says so.

    Args:
        pipeline: the pipeline, or the VAE itself. The VAE is called only if no file is kept for it.
        backend: the backend of its framework.

    Raises:
        UnsupportedPipelineError: as from :func:`fit_rgb_factors`.
    """
    if getattr(facts_for(pipeline), "latents", None) == PIXELS:
        return builtin_formats()[PIXELS]  # the latents are the picture: nothing to fit
    vae = vae_of(pipeline)
    key = _key(pipeline, vae, backend)
    folders = [*_folders(pipeline)]
    found = None if key is None else _read(vae, key, folders)
    if found is None:
        with _shown(pipeline, type(vae).__name__) as progress:
            samples = _samples(latent_channels(vae) or 0)
            fit = fit_rgb_factors(pipeline, samples=samples, held_out=4, progress=progress)
        found = fit.form, fit.mean
        if key is not None:
            _keep(fit, key, folders)
    form, mean = found
    if not mean >= _POOR:
        _warn(
            f"the colours fitted to this {type(vae).__name__} show little of its pictures (r with "
            f"the full decode {mean:.2f}, of at most 1); decoder='vae' shows them"
        )
    return form


def _samples(channels: int) -> int:
    """Return how many pictures to fit on: some hundred cells for each channel."""
    return max(_PICTURES, channels // 2)


def _key(pipeline: Any, vae: Any, backend: Backend) -> str | None:
    """Return a hash of everything that the result depends on; None if the weights cannot be
    read."""
    config: Any = getattr(vae, "config", {})
    settings = dict(config if hasattr(config, "keys") else vars(config))
    about = pipeline_decoding(pipeline)
    facts = None if pipeline is vae else facts_for(pipeline)
    scheduler = getattr(getattr(pipeline, "scheduler", None), "config", None)
    said = {
        "class": f"{type(vae).__module__}.{type(vae).__qualname__}",
        "config": {name: value for name, value in settings.items() if not name.startswith("_")},
        "pipeline": repr(about),
        "layout": None if facts is None else facts.layout,
        "sigma_data": getattr(scheduler, "sigma_data", None) if about.times_sigma_data else None,
    }
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    try:
        for value in (*parameters_of(vae), *_statistics(vae, backend)):
            shape = tuple(int(n) for n in value.shape)
            digest.update(f"{shape} {value.dtype}".encode())
            count = math.prod(shape)
            few = value.reshape((count,))[:: max(1, count // _SAMPLED)] if count else value
            digest.update(np.ascontiguousarray(backend.ops.to_numpy(few)).tobytes())
    except Exception:  # 8-bit weights, or weights not in memory: fitting works all the same
        return None
    return digest.hexdigest()


def _statistics(vae: Any, backend: Backend) -> Iterator[Any]:
    """Yield tensors that normalise latents and are no parameters."""
    norm = getattr(vae, "bn", None)
    owners = [(vae, ("latents_mean", "latents_std")), (norm, ("running_mean", "running_var"))]
    for owner, names in owners:
        for name in names:
            # The configuration is part of the key already.
            if owner is vae and hasattr(getattr(vae, "config", None), name):
                continue
            if backend.is_tensor(value := getattr(owner, name, None)):
                yield value


def _folders(pipeline: Any) -> Iterator[Path]:
    own = getattr(pipeline, "name_or_path", None)
    if own and isinstance(own, str | os.PathLike) and Path(own).is_dir():
        yield Path(own)
    with contextlib.suppress(RuntimeError):  # there is no home directory
        yield _user_cache()


def _user_cache() -> Path:
    if said := os.environ.get("XDG_CACHE_HOME"):
        return Path(said, "unicb")
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local", "unicb/Cache")
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/unicb"
    return Path.home() / ".cache/unicb"


def _file(key: str) -> str:
    return f"preview-fit-{key[:16]}.toml"


def _read(vae: Any, key: str, folders: list[Path]) -> tuple[LatentFormat, float] | None:
    """Return the format kept for this key, and its mean r; None if there is no valid file."""
    for folder in folders:
        try:
            kept = tomllib.loads(Path(folder, _file(key)).read_text(encoding="utf-8"))
            form, mean = LatentFormat.from_mapping(kept["format"]), float(kept["mean"])
            numbers = np.array([*form.factors, form.bias], dtype=np.float64)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        is_ours = (kept.get("version"), kept.get("key")) == (_VERSION, key)
        channels = latent_channels(vae)
        if is_ours and np.isfinite(numbers).all() and channels in (None, form.latent_channels):
            return form, mean
    return None


def _keep(fit: Fit, key: str, folders: list[Path]) -> None:
    """Write the format to the first folder that can be written to; warn if none can."""
    text = (
        "# Colours that unicb has fitted to a VAE; without this file, it fits them anew.\n"
        f'version = {_VERSION}\nkey = "{key}"\nmean = {fit.mean!r}\n\n[format]\n'
        f"{fit.form.to_toml()}"
    )
    why = "there is no home folder"
    for folder in folders:
        part = folder / f".{os.urandom(8).hex()}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The file is complete or absent at any moment, even if another process writes it, too.
            part.write_text(text, encoding="utf-8")
            os.replace(part, folder / _file(key))
            return
        except OSError as error:
            why = f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):
                part.unlink()
    _warn(
        f"the colours that were fitted cannot be kept ({why}), and are fitted anew the next time. "
        "Set XDG_CACHE_HOME to a folder that can be written to, or save them: "
        "fit_rgb_factors(pipe).save('preview.toml'), and Preview(factors='preview.toml')"
    )


@contextmanager
def _shown(pipeline: Any, kind: str) -> Iterator[Callable[[int, int], object]]:
    """Show a progress bar like the pipeline's; without tqdm, a line on stderr."""
    said = getattr(pipeline, "_progress_bar_config", None)
    options = dict(said) if isinstance(said, dict) else {}
    title = f"fitting preview colours to the {kind}"
    try:
        module: Any = importlib.import_module("tqdm.auto")
    except ModuleNotFoundError:
        if not options.get("disable"):
            print(f"{title} …", file=sys.stderr, flush=True)
        yield lambda done, total: None
        return
    with module.tqdm(**{"desc": title, "unit": "picture", **options}) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)
