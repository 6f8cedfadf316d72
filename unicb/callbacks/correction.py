"""Correct the latents on the way: colour casts, outliers, and a narrow range."""

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

#: Where the soft clamp begins, as a share of its bound: 3.5 of 4, the article's figures.
_KNEE = 0.875


class LatentCorrection(Callback):
    """Centre the latents, clamp them softly, and stretch their range, each as the run goes on.

    The idea is that of "Explaining the SDXL latent space" (Timothy Alexis Vass, Hugging Face blog,
    2023): a mean of the latents' channels away from 0 is a colour cast, outliers are burnt spots,
    and a range that is not used is dull colours. The formulas are our own:

    - ``centre`` s: ``x - s * m`` with the mean m of each channel of each picture.
    - ``clamp`` b: what is beyond 7/8 b bends, and comes near b at infinity: with k = 7/8 b and e
      what of x is beyond +-k, ``x - e + e / (1 + |e| / (b - k))``. Without a kink, unlike a cut.
    - ``stretch`` r: each picture is multiplied by one number so that its largest value is r; it is
      never made smaller.

    b and r are multiples of the picture's root mean square at that step, which is about 1 when the
    noise is gone; so they mean the same with a scheduler whose noise has a deviation of 14. They
    are done in this order, at the end of each step in which they are on. What corrects early
    changes what the model draws; what corrects late, how it looks. No value is right for all
    models: docs/callbacks/correction.md has figures for one.

    With ``clamp`` or ``stretch`` on, the latents of the step are copied to the host, for their
    largest value and mean square: the run waits for the device. ``centre`` alone waits for nothing.

    Args:
        centre: strength in 0..1; 0 is off.
        clamp: bound, above 0; ``math.inf`` is off.
        stretch: range, from 0; 0 is off.

    Each is a number for the whole run, a function of progress in 0..1 (of the step that ends), or a
    table of ``(progress, value)`` such as ``[(0.0, 0.0), (0.8, 4.0)]``.

    Raises:
        ValueError: all three are None; a value is out of range, a table unsorted.
        TypeError: a value is no number. (Of a function: in the run.)
        UnsupportedPipelineError: from ``bind``: the latents are not ``[rows, channels, height,
            width]``, or not offered.

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
            return  # the scheduler corrects what it began the step with, and this would not be it
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
    """Clamp the latents; return them, and what they are on the host then. Rows within their bounds
    stay as they are.

    Divided by their bound, all rows bend at the same place.
    """
    whole = np.where(bounds > 0, bounds, 1.0)  # a row of zeros has no bound, and needs none
    y = x / _of_rows(whole, x, ops)
    inside = ops.clamp(y, -_KNEE, _KNEE)
    beyond = y - inside
    size = ops.clamp(beyond, 0.0, math.inf) - ops.clamp(beyond, -math.inf, 0.0)
    bent = inside + beyond / (size / (1 - _KNEE) + 1)
    # The same on the host, for what follows.
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
