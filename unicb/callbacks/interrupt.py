"""Stop a run early."""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from unicb.callback import Callback
from unicb.checks import names, one_of, seconds, shown, step_index
from unicb.step import Picture, Step

if TYPE_CHECKING:
    from unicb import Run, Target


class Interrupt(Callback):
    """Stop early; the pipeline decodes the model's estimate of the finished picture at that step.

    With several conditions, the run stops at the first that is met.

    Args:
        step: index of the last step to run, from 0. The run's own last step changes nothing; a step
            beyond it gives a warning.
        when: a function called with each step at its end; stop if it returns True. It returns a
            bool or a tensor of one element, which costs a wait for the device at each step. It may
            write the tensors; if it writes latents and stops, these are decoded. An exception ends
            the run and reaches the caller.
        deadline: seconds, from the pipeline's call, within which the call should return. The run
            stops if one more step and decoding would take longer. A step is assumed to take as long
            as the longest of the last three. At the end of the first step, only the time since the
            call is known, which includes all work before the loop; so a deadline below twice that
            time stops there. Decoding counts if an earlier call of the same binding has timed it.
        tensors: names of the tensors that ``when`` reads or writes.
        picture: what is decoded. ``"denoised"``: the denoised latents of the last step
            (``step.denoised()``), or the latents if these cannot be computed. ``"latents"``: the
            loop's latents, which still have some noise; the frameworks do this.

    Raises:
        TypeError, ValueError: there is no condition, ``step`` is no index, ``deadline`` is no
            number above 0, ``when`` is not callable, or ``picture`` is none of these words. In the
            run: ``when`` returns no truth value.
        UnsupportedPipelineError: from ``bind``, for a pipeline whose loop cannot be stopped.

    Example:
        >>> callbacks = bind(pipe, Interrupt(4))
        >>> image = callbacks("a red star", num_inference_steps=10)[0]
        >>> callbacks.step
        4
        >>> image = bind(pipe, Interrupt(deadline=20.0))("a red star")[0]
        >>> image = bind(pipe, Interrupt(when=lambda step: step.index == 6))("a red star")[0]
    """

    def __init__(
        self,
        step: int | None = None,
        *,
        when: Callable[[Step], Any] | None = None,
        deadline: float | None = None,
        tensors: Sequence[str] = ("latents",),
        picture: Picture = "denoised",
    ) -> None:
        if step is None and when is None and deadline is None:
            raise ValueError(
                "Interrupt needs a condition: Interrupt(12) stops after step 12, "
                "Interrupt(when=lambda step: ...) by an answer, Interrupt(deadline=5.0) in time"
            )
        if callable(step):
            raise TypeError("a condition is given by name: write Interrupt(when=...)")
        if isinstance(step, float) and 0 < step < 1:
            raise TypeError(
                f"step is the index of the last step, an int, and not a share of the steps; for "
                f"this, write Interrupt(when=lambda step: step.progress >= {step})"
            )
        self._step = None if step is None else step_index("step", step)
        if when is not None and not callable(when):
            raise TypeError(f"when must be a function of a Step, not {shown(when)}")
        self._when = when
        self._deadline = None if deadline is None else seconds("deadline", deadline)
        self.tensors = names("tensors", tensors) if when is not None else ()
        self._picture: Picture = one_of("picture", picture, get_args(Picture))

    def on_bind(self, target: Target) -> None:
        target.check_interruptible()

    def on_run_end(self, run: Run) -> None:
        # Only now: a loop over several windows of a video continues its count after one pass.
        if self._step is not None and run.outcome == "finished" and self._step > run.index:
            warnings.warn(
                f"Interrupt({self._step}) has stopped nothing: the run's last step was "
                f"{run.index}, for steps are counted from 0. A share of the steps is "
                "Interrupt(when=lambda step: step.progress >= 0.5)",
                stacklevel=2,
            )

    def on_step_end(self, step: Step) -> None:
        before = step["latents"] if "latents" in self.tensors else None
        # `when` is called at every step, even if another condition is met: it may change the
        # tensors.
        reasons = [
            self._step is not None and step.index >= self._step,
            self._deadline is not None and self._is_late(step, self._deadline),
            self._when is not None and _truth(self._when(step), step),
        ]
        if any(reasons):
            written = before is not None and step["latents"] is not before
            step.interrupt(picture="latents" if written else self._picture)

    def _is_late(self, step: Step, deadline: float) -> bool:
        now, run = time.monotonic(), step.run
        ends = run.state(self, _recent)
        ends.append(now)
        lasted = [after - before for before, after in pairwise(ends)]
        longest = max(lasted, default=now - run.called_at)
        # If several ranks share the run, one more step passes until all of them stop.
        longest *= 1 + run.stop_delay
        return now + longest + (run.decode_seconds or 0.0) > run.called_at + deadline


def _recent() -> deque[float]:
    """Make an empty record of the times at which the last four steps ended."""
    return deque(maxlen=4)


def _truth(answer: Any, step: Step) -> bool:
    if step.run.is_tensor(answer) and math.prod(answer.shape) == 1:
        return bool(step.ops.to_numpy(answer).reshape(-1)[0])
    if isinstance(answer, bool | np.bool_):
        return bool(answer)
    raise TypeError(
        f"when must answer with a bool, or with a tensor of one element, not {shown(answer)} "
        f"({type(answer).__name__})"
    )
