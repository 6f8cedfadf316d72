"""Notice NaN or infinities in the latents, at the step at which they appear."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from unicb.callback import Callback
from unicb.checks import one_of, whole_number
from unicb.errors import LatentsNotFiniteError
from unicb.ops import Tensor, TensorOps
from unicb.step import Step
from unicb.tensors import dtype_name, mean

if TYPE_CHECKING:
    from unicb import Target

#: What a guard does about latents that are not finite.
Action: TypeAlias = Literal["raise", "stop", "warn"]


@dataclass
class _Checked:
    """Hold what the guard remembers of one run.

    Attributes:
        before: step index and latents of the last check; None before the first.
        warned: True once the guard has warned.
    """

    before: tuple[int, Tensor] | None = None
    warned: bool = False


class NaNGuard(Callback):
    """Look for NaN and infinities in the latents, and say at which step they appeared, how many
    values are affected, and what the likely cause is.

    Without the guard, a black picture after all steps is the first sign. Errors in the VAE, after
    the last step, are seen by no callback.

    A check is a sum on the device and a transfer of one byte for each picture, which waits for the
    device; latents are copied to the host only if the check finds something. The latents of the
    last check are kept on the device. For figures, see docs/callbacks/nan_guard.md.

    Args:
        action: "raise": raise :class:`LatentsNotFiniteError` from the pipeline's call; "stop":
            warn, stop, and decode the latents of the check before (or raise, if the first check
            finds them); "warn": warn once, and go on.
        every: check steps 0, ``every``, ``2 * every``, …, and the last step.

    Raises:
        TypeError, ValueError: ``action`` is none of these words, or ``every`` is no int from 1.
        UnsupportedPipelineError: from ``bind``: the pipeline offers no latents; or, with "stop",
            its loop cannot be stopped.

    Example:
        >>> image = bind(pipe, NaNGuard(every=5))("a red star")[0]
    """

    tensors = ("latents",)

    def __init__(self, action: Action = "raise", every: int = 1) -> None:
        self._action: Action = one_of("action", action, get_args(Action))
        self._every = whole_number("every", every)

    def on_bind(self, target: Target) -> None:
        if self._action == "stop":
            target.check_interruptible()

    def on_step_end(self, step: Step) -> None:
        last = step.index + 1 == step.num_timesteps
        checked = step.run.state(self, _Checked)
        if checked.warned or (step.index % self._every and not last):
            return
        latents = step["latents"]
        if _is_finite(latents, step.ops):
            checked.before = step.index, latents
        else:
            self._act(step, checked)

    def _act(self, step: Step, checked: _Checked) -> None:
        message, share = _diagnosis(step, checked.before)
        can_go_back = (
            checked.before is not None and _finite_rows(step.ops.to_numpy(checked.before[1])).all()
        )
        if self._action == "raise" or (self._action == "stop" and not can_go_back):
            raise LatentsNotFiniteError(message, step.index, share)
        checked.warned = True
        if self._action == "stop":
            assert checked.before is not None
            step["latents"] = checked.before[1]
            step.interrupt(picture="latents")
            message += f"; stopped, and went back to the latents of step {checked.before[0]}"
        checked.before = None
        step.run.warned(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def _is_finite(latents: Tensor, ops: TensorOps) -> bool:
    # NaN or infinity times 0 is NaN, and so is the mean; converted to 8 bits, NaN becomes 0.
    values = ops.to_uint8(mean(ops, latents * 0) + 255)
    return bool((values == 255).all())


def _finite_rows(latents: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    rows: npt.NDArray[np.bool_] = np.isfinite(latents).reshape(len(latents), -1).all(axis=1)
    return rows


def _largest(latents: npt.NDArray[Any]) -> float:
    finite = latents[np.isfinite(latents)].astype(np.float64)
    return float(np.abs(finite).max()) if finite.size else math.nan


def _diagnosis(step: Step, before: tuple[int, Tensor] | None) -> tuple[str, float]:
    latents = step.ops.to_numpy(step["latents"])
    bad = ~np.isfinite(latents)
    share = float(bad.mean())
    pictures = np.flatnonzero(~_finite_rows(latents)).tolist()
    dtype = dtype_name(step["latents"])
    kinds = [
        f"{int(found.sum())} {name}"
        for name, found in (("NaN", np.isnan(latents)), ("infinite", np.isinf(latents)))
        if found.any()
    ]
    parts = [
        f"latents are not finite after step {step.index} of {step.num_timesteps} (timestep "
        f"{step.timestep:g}): {100 * share:.3g} % of the values ({' and '.join(kinds)})"
    ]
    if len(latents) > 1:
        parts.append(f" in the pictures {', '.join(map(str, pictures))} of {len(latents)}")
    if before is None:
        parts.append("; no check was before it")
    else:
        largest = _largest(step.ops.to_numpy(before[1]))
        parts.append(
            f"; after step {before[0]} they were finite, the largest {largest:.4g} (dtype {dtype})"
        )
    return f"{''.join(parts)}. {_cause(dtype, before is None)}", share


def _cause(dtype: str, at_once: bool) -> str:
    if dtype == "float16":
        return (
            "Likely cause: an overflow in the denoiser, for float16 ends at 65504; load the "
            "pipeline in bfloat16 or float32"
        )
    if at_once:
        return (
            "Likely cause: what the run began with; look for NaN in the latents and embeddings "
            "that it was given, and in the denoiser's weights"
        )
    return (
        f"{dtype} reaches far: likely causes are a callback before this one, a guidance scale far "
        "too high, the scheduler, or a model that computes in float16"
    )
