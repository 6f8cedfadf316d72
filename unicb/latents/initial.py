"""Draw a run's first noise with numpy, so that every framework gets the same numbers."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np

from unicb.backend import Backend, backend_for
from unicb.checks import whole_number
from unicb.errors import UnsupportedPipelineError
from unicb.latents.layouts import layout_of
from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts, facts_for
from unicb.pipelines.source import CallSource

#: Layouts whose shape follows from a picture's size, and how many cells a token has in each.
_CELLS_PER_TOKEN = {"bchw": 1, "b(hw)(cpq)": 4}


def initial_latents(
    pipeline: Any,
    seed: int,
    batch: int = 1,
    height: int | None = None,
    width: int | None = None,
) -> Tensor:
    """Draw latents to start a run with: ``pipe(prompt, latents=initial_latents(pipe, seed=7))``.

    The numbers are the same on every framework and device, up to rounding to the pipeline's dtype:
    they are drawn by ``numpy.random.default_rng(seed)`` in the pipeline's own shape. So the picture
    is the same, too, up to the frameworks' rounding. Picture i of a batch does not depend on the
    size of the batch.

    They have a standard deviation of 1, and are not multiplied by the scheduler's
    ``init_noise_sigma``: pipelines multiply given latents by it, too. That is checked with the
    pipeline's own ``prepare_latents``, once with these latents and once without, which does not
    change the frameworks' random numbers.

    Args:
        pipeline: one whose ``__call__`` takes ``latents`` to start with.
        seed: an int from 0.
        batch: number of pictures: prompts times ``num_images_per_prompt``.
        height, width: of the picture, in pixels, as for the pipeline's call; None: the pipeline's
            default.

    Returns:
        A tensor of the pipeline's framework, dtype and device: ``[batch, channels, height / s,
        width / s]`` with the VAE's scale s, or for packed latents (Flux) ``[batch, tokens, 4 *
        channels]``.

    Raises:
        TypeError, ValueError: a number is out of range, or the size is no multiple of the
            pipeline's cells.
        UnsupportedPipelineError: the pipeline takes no latents, or their shape or scale is not
            known: it starts from a picture, or makes no picture.
        BackendNotFoundError, BackendLoadError: no backend for the pipeline, or it fails to load.

    Example:
        >>> noise = initial_latents(pipe, seed=7, batch=2)
        >>> noise.shape
        (2, 4, 16, 16)
    """
    backend = backend_for(pipeline)
    seed = whole_number("seed", seed, least=0)
    batch = whole_number("batch", batch)
    facts = facts_for(pipeline)
    cells = _cells_per_token(pipeline, facts)
    model = _denoiser(pipeline, facts)
    sizes = _pixels(pipeline, model, (height, width), math.isqrt(cells))
    arguments = {
        "batch_size": batch,
        "num_channels_latents": _channels(pipeline, model, cells),
        "height": sizes[0],
        "width": sizes[1],
        "dtype": model.dtype,
        "device": getattr(pipeline, "_execution_device", None),
        "generator": None,
    }
    fresh = _prepared(backend, pipeline, arguments, None)
    shape = tuple(int(n) for n in fresh.shape)
    noise = np.random.default_rng(seed).normal(size=shape)
    latents = backend.ops.from_numpy(noise, like=fresh)
    _check_scale(backend, pipeline, fresh, _prepared(backend, pipeline, arguments, latents))
    return latents


def _cells_per_token(pipeline: Any, facts: PipelineFacts | None) -> int:
    layout = layout_of(pipeline, facts).notation if facts is None or facts.layout else ""
    if layout not in _CELLS_PER_TOKEN:
        raise _not_known(pipeline, "their layout is none of " + ", ".join(_CELLS_PER_TOKEN))
    if "latents" not in CallSource.of(type(pipeline)).parameters:
        raise _not_known(pipeline, "its __call__ takes no latents")
    return _CELLS_PER_TOKEN[layout]


def _denoiser(pipeline: Any, facts: PipelineFacts | None) -> Any:
    names = ("unet", "transformer") if facts is None or not facts.denoisers else facts.denoisers
    for name in names:
        if (model := getattr(pipeline, name, None)) is not None:
            return model
    raise _not_known(pipeline, f"it has no {' and no '.join(names)}")


def _pixels(
    pipeline: Any, model: Any, asked: tuple[int | None, int | None], edge: int
) -> tuple[int, int]:
    scale = getattr(pipeline, "vae_scale_factor", None)
    if not scale:
        raise _not_known(pipeline, "it has no vae_scale_factor")
    found = []
    for axis, name in enumerate(("height", "width")):
        value = asked[axis]
        if value is None:
            value = _default_cells(pipeline, model, axis) * scale
        value = whole_number(name, value)
        if value % (scale * edge):
            raise ValueError(
                f"{name} must be a multiple of {scale * edge} for a {type(pipeline).__name__}, "
                f"not {value}"
            )
        found.append(value)
    return found[0], found[1]


def _default_cells(pipeline: Any, model: Any, axis: int) -> int:
    cells = getattr(pipeline, "default_sample_size", None)
    if cells is None:
        cells = getattr(getattr(model, "config", None), "sample_size", None)
    if isinstance(cells, list | tuple):
        cells = cells[axis]
    if not isinstance(cells, int):
        raise _not_known(pipeline, "it has no default size; give height and width")
    return cells


def _channels(pipeline: Any, model: Any, cells: int) -> int:
    config = getattr(getattr(pipeline, "vae", None), "config", None)
    channels = getattr(config, "latent_channels", None)
    if not isinstance(channels, int):
        raise _not_known(pipeline, "its VAE does not say how many latent_channels it has")
    # One of the counts may include more: a mask or a picture, or a learned variance.
    theirs = [getattr(model.config, name, None) for name in ("in_channels", "out_channels")]
    if channels * cells not in theirs:
        raise _not_known(
            pipeline,
            f"its VAE has {channels} channels, and its denoiser takes {theirs[0]} and gives "
            f"{theirs[1]}",
        )
    return channels


def _prepared(
    backend: Backend, pipeline: Any, arguments: dict[str, Any], latents: Tensor | None
) -> Tensor:
    """Return the latents that the pipeline's loop starts with."""
    prepare = getattr(pipeline, "prepare_latents", None)
    if prepare is None:
        raise _not_known(pipeline, "it has no prepare_latents")
    parameters = inspect.signature(prepare).parameters
    known = {**arguments, "latents": latents}
    needs = [name for name, p in parameters.items() if p.default is p.empty and name not in known]
    if needs or "latents" not in parameters:
        reason = f"takes {', '.join(needs)}" if needs else "takes no latents"
        raise _not_known(pipeline, f"its prepare_latents {reason}")
    with backend.fork_rng():
        found = prepare(**{name: known[name] for name in parameters if name in known})
    found = found[0] if isinstance(found, list | tuple) else found
    if not backend.is_tensor(found) or int(found.shape[0]) != arguments["batch_size"]:
        raise _not_known(
            pipeline, "its prepare_latents gives no tensor with a row for each picture"
        )
    return found


def _check_scale(backend: Backend, pipeline: Any, fresh: Tensor, given: Tensor) -> None:
    """Check that given latents leave ``prepare_latents`` with the same standard deviation as the
    pipeline's own."""
    if tuple(fresh.shape) != tuple(given.shape):
        raise _not_known(
            pipeline,
            f"it makes {tuple(given.shape)} of given latents, and {tuple(fresh.shape)} of its own",
        )
    drawn, ours = (
        float(np.std(backend.ops.to_numpy(x).astype(np.float64))) for x in (fresh, given)
    )
    # The standard error of a deviation is 1 / sqrt(2 n); that of a difference of two, sqrt(2) times
    # as large.
    allowed = 6 / math.sqrt(math.prod(given.shape))
    if not abs(drawn - ours) <= allowed * max(drawn, ours):
        raise _not_known(
            pipeline,
            f"of those that it draws, the standard deviation is {drawn:.3g}, of given ones "
            f"{ours:.3g}: it does not scale both alike",
        )


def _not_known(pipeline: Any, reason: str) -> UnsupportedPipelineError:
    return UnsupportedPipelineError(
        f"initial latents of a {type(pipeline).__name__} cannot be made: {reason}"
    )
