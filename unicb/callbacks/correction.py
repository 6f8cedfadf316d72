"""Correct the latents during a run: colour casts, outliers, and a narrow range."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unicb.callback import Callback
from unicb.callbacks._schedules import Schedule, Scheduled
from unicb.checks import number_above_0, number_from_0, share
from unicb.errors import UnsupportedPipelineError
from unicb.ops import Tensor, TensorOps
from unicb.step import Step
from unicb.tensors import mean

if TYPE_CHECKING:
    from unicb import Target

#: Where the soft clamp begins, as a share of its bound: 3.5 of 4, as in the article.
_KNEE = 0.875


class LatentCorrection(Callback):
    """Centre the latents, clamp them softly, and stretch their range, at the end of each step.

    The idea is that of "Explaining the SDXL latent space" (Timothy Alexis Vass, Hugging Face blog,
    2023): a mean of the latents' channels away from 0 is a colour cast, outliers are burnt spots,
    and an unused part of the range makes dull colours. The formulas are our own:

    - ``centre`` s: ``x - s * m`` with the mean m of each channel of each picture.
    - ``clamp`` b: values beyond k = 7/8 b are bent smoothly towards b, which they reach at
    infinity: ``x - e + e / (1 + |e| / (b - k))``, where e is the part of x beyond +-k. -
    ``stretch`` r: each picture is multiplied by one number of at least 1, so that its largest value
    is at least r.

    b and r are multiples of the picture's root mean square at that step, which is about 1 when the
    noise is gone; so they mean the same with a scheduler whose noise has a deviation of 14. The
    corrections are made in this order, at the end of each step in which they are on. Early
    corrections change what the model draws; late ones, how it looks. No value is right for all
    models: docs/callbacks/correction.md has figures for one.

    With ``clamp`` or ``stretch`` on, each step's latents are copied to the host to find their
    largest value and mean square, so the run waits for the device. ``centre`` alone does not wait.

    Args:
        centre: strength s in 0..1; 0 or None: off.
        clamp: bound b, above 0; ``math.inf`` or None: off.
        stretch: range r, from 0; 0 or None: off.

    Each is a number for the whole run, a function of progress in 0..1 (of the step that ends), or a
    table of ``(progress, value)`` such as ``[(0.0, 0.0), (0.8, 4.0)]``.

    Raises:
        ValueError: all three are None, a value is out of range, or a table is unsorted.
        TypeError: a value is no number (for a function's result: raised in the run).
        UnsupportedPipelineError: from ``bind``: the pipeline offers no latents, or they are not
            ``[rows, channels, height, width]``.

    Example:
        >>> late = LatentCorrection(centre=0.5, clamp=[(0.0, 9.0), (0.8, 3.5)])
        >>> image = bind(pipe, late)("a red star")[0]
    """

    tensors = ("latents",)

    def __init__(
        self,
        centre: Schedule[float] | None = None,
        clamp: Schedule[float] | None = None,
        stretch: Schedule[float] | None = None,
    ) -> None:
        if centre is None and clamp is None and stretch is None:
            raise ValueError(
                "LatentCorrection has nothing to do: give it centre=, clamp= or stretch="
            )
        self._centre = None if centre is None else Scheduled("centre", centre, _strength)
        self._clamp = None if clamp is None else Scheduled("clamp", clamp, _bound)
        self._stretch = None if stretch is None else Scheduled("stretch", stretch, _range)

    def on_bind(self, target: Target) -> None:
        facts = target.facts
        layout = target.layout.notation if facts is None or facts.layout else ""
        if layout != "bchw":
            raise UnsupportedPipelineError(
                f"LatentCorrection works on latents [rows, channels, height, width] (bchw); those "
                f"of {target.name} are {layout or 'no picture'}"
            )

    def on_step_end(self, step: Step) -> None:
        progress, x, ops = step.progress, step["latents"], step.ops
        if len(x.shape) != 4:
            raise UnsupportedPipelineError(
                f"LatentCorrection works on latents [rows, channels, height, width]; those of "
                f"{type(step.pipeline).__name__} are of shape {tuple(x.shape)}"
            )
        if not step.is_whole:
            return  # the second half step starts from the latents before the first, uncorrected
        strength = 0.0 if self._centre is None else self._centre.at(progress)
        bound = math.inf if self._clamp is None else self._clamp.at(progress)
        reach = 0.0 if self._stretch is None else self._stretch.at(progress)
        if strength:
            x = x - mean(ops, x, kept=2) * strength
        if bound < math.inf or reach:
            host = ops.to_numpy(x).astype(np.float64)
            sizes = np.sqrt(np.mean(host**2, axis=(1, 2, 3)))
            if bound < math.inf:
                x, host = _soft_clamp(x, host, sizes * bound, ops)
            if reach:
                x = x * _of_rows(_factors(host, sizes * reach), x, ops)
        if strength or bound < math.inf or reach:
            step["latents"] = x


def _soft_clamp(
    x: Tensor, host: npt.NDArray[np.float64], bounds: npt.NDArray[np.float64], ops: TensorOps
) -> tuple[Tensor, npt.NDArray[np.float64]]:
    """Clamp the latents softly; return them, with their copy on the host. Rows within their bounds
    do not change.

    Divided by their bound, all rows bend at the same place.
    """
    whole = np.where(bounds > 0, bounds, 1.0)  # a row of zeros has bound 0, and needs no clamp
    y = x / _of_rows(whole, x, ops)
    inside = ops.clamp(y, -_KNEE, _KNEE)
    beyond = y - inside
    size = ops.clamp(beyond, 0.0, math.inf) - ops.clamp(beyond, -math.inf, 0.0)
    bent = inside + beyond / (size / (1 - _KNEE) + 1)
    # The same on the host copy, from which `stretch` is computed.
    z = host / whole[:, None, None, None]
    kept = np.clip(z, -_KNEE, _KNEE)
    rest = z - kept
    done = (kept + rest / (1 + np.abs(rest) / (1 - _KNEE))) * whole[:, None, None, None]
    return bent * _of_rows(whole, x, ops), done


def _factors(
    host: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    largest = np.abs(host).max(axis=(1, 2, 3))
    grown = np.divide(targets, largest, out=np.ones_like(targets), where=largest > 0)
    factors: npt.NDArray[np.float64] = np.maximum(1.0, grown)
    return factors


def _of_rows(values: npt.NDArray[np.float64], like: Tensor, ops: TensorOps) -> Tensor:
    return ops.from_numpy(values.reshape(-1, 1, 1, 1).astype(np.float32), like=like)


def _strength(name: str, value: Any) -> float:
    return share(name, value, "must be a strength in 0..1")


def _bound(name: str, value: Any) -> float:
    if isinstance(value, float | np.floating) and value == math.inf:
        return math.inf
    return number_above_0(name, value, "must be a bound above 0 (math.inf is off)")


def _range(name: str, value: Any) -> float:
    return number_from_0(name, value, "must be a range from 0 (which is off)")
