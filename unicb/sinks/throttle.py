"""Decide how often to show a step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from unicb.checks import number_above_0, whole_number


class Throttle:
    """Decide for each step of a run whether to show it.

    Shown are steps 0, ``every``, ``2 * every``, …, but of these none that comes sooner than
    ``1 / max_fps`` seconds after the one shown before; and the last step, whatever the time.
    A run that is ended early has a last step that nobody knew of.

    Args:
        every: count of steps, from 1.
        max_fps: shown steps per second, above 0; None: no limit.
        clock: seconds on a clock that is never set back.

    Raises:
        TypeError: ``every`` is no int, ``max_fps`` no number.
        ValueError: one of them is out of range.
    """

    def __init__(
        self,
        every: int = 1,
        max_fps: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every = whole_number("every", every)
        self._interval = 0.0
        if max_fps is not None:
            self._interval = 1.0 / number_above_0("max_fps", max_fps, hint="; None is no limit")
        self._clock = clock
        self._shown_at = -math.inf

    def reset(self) -> None:
        """Start a new run: its first step is shown, whenever the last one of another was."""
        self._shown_at = -math.inf

    def shows(self, step: int, num_timesteps: int) -> bool:
        """Return whether to show this step, by its index from 0. Asks the clock; ask once a
        step."""
        now = self._clock()
        due = step % self._every == 0 and now - self._shown_at >= self._interval
        if not (due or step + 1 == num_timesteps):
            return False
        self._shown_at = now
        return True
