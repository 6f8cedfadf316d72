"""Find out from one step how a loop combines the denoiser's predictions.

A loop combines the denoiser's parts to the ``model_output`` for its scheduler. If that is
``a * u + b * c``, least squares over the elements of one step gives a and b: for
``u + g * (c - u)``, they are ``1 - g`` and g. So the part with the larger share ``b / (a + b)`` is
the conditional one, and that share is g, whatever the class is called and however its code is
written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]

#: Above this condition number two parts are practically equal, and any coefficients would fit.
SINGULAR = 1e6


class Combination(NamedTuple):
    """A combination says how a loop combines the parts that its denoiser predicts.

    Attributes:
        coefficients: a number for each part, over all equations; if ``varies``, single equations
            differ from these.
        conditional: index of the conditional part.
        scale: g, if the loop computes k * (u + g * (c - u)).
        varies: True if k differs between equations, because the loop rescales by a norm, for
            example.
        error: the standard deviation of ``scale`` due to rounding, relative to ``scale``.
        how: in words, which equations were solved.
    """

    coefficients: tuple[float, ...]
    conditional: int
    scale: float
    varies: bool
    error: float
    how: str

    @property
    def total(self) -> float:
        """Return the sum of the coefficients: k."""
        return sum(self.coefficients)


def combination_of(
    parts: Sequence[Array], output: Array, sample: Array | None, precision: float
) -> Combination | None:
    """Find how ``output`` is combined from ``parts``; None if no combination fits.

    Args:
        parts: the denoiser's predictions, each of the shape of ``output``: ``[rows, ...]``.
        output: the ``model_output`` that the loop hands to its scheduler.
        sample: the latents that the scheduler steps from, with which a loop may convert a
            prediction. They may have fewer channels than the output.
        precision: the machine epsilon of the dtype in which the loop computes.
    """
    for how, columns, wanted in _equations(parts, output, sample):
        found = _solve(columns, wanted, precision)
        if found is None:
            continue
        coefficients, errors = (x[:, : len(parts)] for x in found)
        made = _judged(coefficients, errors, how)
        if made is not None:
            return made
    return None


def _equations(
    parts: Sequence[Array], output: Array, sample: Array | None
) -> Iterator[tuple[str, Array, Array]]:
    """Yield columns ``[equations, elements, parts]``, and the values that their combination has to
    give, with the most usual equations first."""

    def rows(x: Array) -> Array:
        return x.reshape(len(x), -1)

    yield "rows", np.stack([rows(x) for x in parts], 2), rows(output)
    if sample is not None and sample.shape == output.shape:
        yield "rows with the sample", np.stack([rows(x) for x in (*parts, sample)], 2), rows(output)
    elif sample is not None:
        # A learned variance comes after the prediction, and is not guided.
        own = tuple(slice(0, n) for n in sample.shape)
        cut = [rows(x[own]) for x in parts]
        yield "the sample's channels", np.stack(cut, 2), rows(output[own])
    channels = -1 if output.ndim == 3 else 1
    if output.ndim > 2 and output.shape[channels] > len(parts):

        def cells(x: Array) -> Array:
            return np.moveaxis(x, channels, -1).reshape(-1, x.shape[channels])

        yield "cells", np.stack([cells(x) for x in parts], 2), cells(output)
    if output.ndim == 5:
        for axis in (1, 2):

            def frames(x: Array, axis: int = axis) -> Array:
                moved = np.moveaxis(x, axis, 1)
                return moved.reshape(moved.shape[0] * moved.shape[1], -1)

            yield f"frames on axis {axis}", np.stack([frames(x) for x in parts], 2), frames(output)


def _solve(columns: Array, wanted: Array, precision: float) -> tuple[Array, Array] | None:
    """Solve each equation by least squares; return the solutions and their standard deviations.
    None if a solution's residual is more than rounding, or a solution is not unique."""
    if not (np.isfinite(columns).all() and np.isfinite(wanted).all()):
        return None
    if columns.shape[1] < columns.shape[2]:
        return None
    norms = np.linalg.norm(columns, axis=1, keepdims=True)
    if not norms.all():
        return None
    scaled = columns / norms
    singular = np.linalg.svd(scaled, compute_uv=False)
    if (singular[:, -1] * SINGULAR < singular[:, 0]).any():
        return None
    inverse: Array = np.linalg.pinv(scaled)
    found = np.matmul(inverse, wanted[..., None])[..., 0]
    left = np.matmul(scaled, found[..., None])[..., 0] - wanted
    if np.abs(left).max() > max(1e-4, 8 * precision) * wanted.std():
        return None
    noise = np.maximum(left.std(1), precision * np.sqrt((wanted**2).mean(1)))
    errors = noise[:, None] * np.linalg.norm(inverse, axis=2)
    return found / norms[:, 0], errors / norms[:, 0]


def _judged(coefficients: Array, errors: Array, how: str) -> Combination | None:
    """Return the combination with these coefficients ``[equations, parts]``; None if they are not
    those of guidance, or too uncertain."""
    totals = coefficients.sum(1)
    if np.abs(totals).min() < 1e-3:
        return None
    shares = coefficients / totals[:, None]
    means = shares.mean(0)
    conditional = int(means.argmax())
    scale = float(means[conditional])
    if scale < 1 + 1e-3 or (means < 0).sum() == 0:
        return None
    error = float((errors[:, conditional] / np.abs(totals)).max()) / scale
    spread = float(np.ptp(shares[:, conditional])) / scale
    of_frames = how.startswith("frames")
    if error > 0.02 or (not of_frames and spread > 1e-2 + 6 * error):
        return None
    mean: Any = coefficients.mean(0)
    varies = of_frames or bool(np.ptp(totals) > (1e-3 + 6 * error) * abs(totals.mean()))
    return Combination(tuple(mean.tolist()), conditional, scale, varies, error, how)
