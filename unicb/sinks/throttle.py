"""Decide which steps of a run to show."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from unicb.checks import number_above_0, whole_number


class Throttle:
    """Decide for each step of a run whether to show it.

    Steps 0, ``every``, ``2 * every``, … are shown, except those that come sooner than
    ``1 / max_fps`` seconds after the step shown before; and the last step always. If a run is ended
    early, its last step is not known beforehand, and may not be shown.

    Args:
        every: show every so many steps, from 1.
        max_fps: the most shown steps per second, above 0; None: no limit.
        clock: returns seconds on a monotonic clock.

    Raises:
        TypeError: ``every`` is no int, or ``max_fps`` no number.
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
        """Start a new run, whose first step is shown, however recently another run showed a
        step."""
        self._shown_at = -math.inf

    def shows(self, step: int, num_timesteps: int) -> bool:
        """Return whether to show the step with this index, from 0. Call it once for each step: it
        reads the clock."""
        now = self._clock()
        due = step % self._every == 0 and now - self._shown_at >= self._interval
        if not (due or step + 1 == num_timesteps):
            return False
        self._shown_at = now
        return True
