"""Measure a run's pace, and estimate the time that it still takes."""

from __future__ import annotations

import statistics
from collections import deque
from itertools import pairwise


class Pace:
    """Seconds per step over a run's last steps, at most eight intervals."""

    def __init__(self) -> None:
        self._ends: deque[tuple[int, float]] = deque(maxlen=9)

    def add(self, step: int, now: float) -> None:
        """Note that the step of this index has ended at the time ``now``, in seconds on a monotonic
        clock."""
        self._ends.append((step, now))

    @property
    def seconds_per_step(self) -> float | None:
        """Return the median seconds a step over the last steps; None until two steps were added."""
        lasted = [
            (after - before) / max(1, step - earlier)
            for (earlier, before), (step, after) in pairwise(self._ends)
        ]
        return statistics.median(lasted) if lasted else None

    def remaining(self, num_timesteps: int) -> float | None:
        """Return how many seconds the remaining steps take at this pace; None until two steps were
        added."""
        pace = self.seconds_per_step
        return None if pace is None else pace * (num_timesteps - self._ends[-1][0] - 1)


def words(step: int, num_timesteps: int, pace: float | None, remaining: float | None) -> str:
    """Return progress and pace in one line: ``step 5/20, 0.21 s a step, 0:03 left``."""
    done = f"step {step + 1}/{num_timesteps}"
    if pace is None or remaining is None:
        return done
    minutes, seconds = divmod(round(remaining), 60)
    return f"{done}, {pace:.3g} s a step, {minutes}:{seconds:02d} left"
