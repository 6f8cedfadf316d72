"""Find the step after which something is cut off; steps count as in the frameworks."""

from __future__ import annotations

import warnings

from unicb.checks import share, shown, step_index
from unicb.step import Step

_HINT = "; to cut after a given step, pass cutoff_step_index"


class Cutoff:
    """A cutoff is a step, given by the share of the steps before it or by its index.

    Args:
        owner: the callback's name, for messages.
        ratio: share of the steps, in 0..1; the cutoff is step ``int(num_timesteps * ratio)``.
        index: index of the step, from 0.

    Raises:
        ValueError: not exactly one of ``ratio`` and ``index`` is given, or it is out of range.
        TypeError: the one given is no number.
    """

    def __init__(self, owner: str, ratio: float | None, index: int | None) -> None:
        if (ratio is None) == (index is None):
            found = "neither" if ratio is None else f"{shown(ratio)} and {shown(index)}"
            raise ValueError(
                f"{owner} takes exactly one of cutoff_step_ratio and cutoff_step_index, not "
                f"{found}: write {owner}(0.4), or {owner}(cutoff_step_index=8)"
            )
        self._owner = owner
        hint = f"; to cut after step {shown(ratio)}, write {owner}(cutoff_step_index="
        hint = f"{hint}{shown(ratio)})" if type(ratio) is int and ratio > 1 else _HINT
        self._ratio = None if ratio is None else share("cutoff_step_ratio", ratio, hint=hint)
        self._index = None if index is None else step_index("cutoff_step_index", index)

    def is_over(self, step: Step) -> bool:
        """Return whether the cutoff has come by the end of ``step``.

        False at the run's last step, where a cut would change nothing, and between the two halves
        of a step of a scheduler of order 2. A cutoff beyond the last step warns at the first step.
        """
        cutoff = self._step(step.num_timesteps)
        if step.index == 0 and cutoff >= step.num_timesteps and self._index is not None:
            message = (
                f"{self._owner}(cutoff_step_index={cutoff}) never cuts: the run's last step is "
                f"{step.num_timesteps - 1}"
            )
            step.run.warned(message)
            warnings.warn(message, stacklevel=3)
        return cutoff <= step.index < step.num_timesteps - 1 and step.is_whole

    def _step(self, num_timesteps: int) -> int:
        if self._index is not None:
            return self._index
        assert self._ratio is not None
        return int(num_timesteps * self._ratio)
