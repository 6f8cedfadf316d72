"""The pace of a run, and the time that it still takes."""

from __future__ import annotations

import statistics
from collections import deque
from itertools import pairwise


class Pace:
    """The pace of a run's last steps."""

    def __init__(self) -> None:
        self._ends: deque[tuple[int, float]] = deque(maxlen=9)

    def add(self, step: int, now: float) -> None:
        """Note that the step of this index has ended at this time, in seconds on a clock that is
        never set back."""
        self._ends.append((step, now))

    @property
    def seconds_per_step(self) -> float | None:
        """Return the median of the last eight that were added; None after the first."""
        lasted = [
            (after - before) / max(1, step - earlier)
            for (earlier, before), (step, after) in pairwise(self._ends)
        ]
        return statistics.median(lasted) if lasted else None

    def remaining(self, num_timesteps: int) -> float | None:
        """Return how many seconds the steps to come will take, at that pace; None after the
        first."""
        pace = self.seconds_per_step
        return None if pace is None else pace * (num_timesteps - self._ends[-1][0] - 1)


def words(step: int, num_timesteps: int, pace: float | None, remaining: float | None) -> str:
    """Return one line: ``step 5/20, 0.21 s a step, 0:03 left``."""
    done = f"step {step + 1}/{num_timesteps}"
    if pace is None or remaining is None:
        return done
    minutes, seconds = divmod(round(remaining), 60)
    return f"{done}, {pace:.3g} s a step, {minutes}:{seconds:02d} left"
