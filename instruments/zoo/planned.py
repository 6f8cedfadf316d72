"""Meter runs in which some steps are without guidance, and tell which steps those are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unicb.guidance._tree import mapped
from unicb.pipelines import PipelineFacts
from zoo.framework import Framework
from zoo.measure import Meter

#: Where a difference is not below the usual bound, it may be no more than what comes of roundings:
#: of predictions that are changed by this share, at random. Sums over rows of another number are
#: rounded in the last bits of a float32, and terms that cancel leave more of that.
ROUNDING = 2.0**-18


@dataclass(frozen=True)
class Ended:
    """The end of one step: its index, among how many, and whether it is a half step."""

    index: int
    steps: int
    whole: bool


class Rounding(Meter):
    """Change predictions in their last bits, at random, if it has random numbers for that."""

    rounding: np.random.Generator | None = None

    def _call(self, name: str, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = super()._call(name, call, args, kwargs)
        if self.rounding is None or self.facts is None or name not in self.facts.denoisers:
            return out
        return mapped(self._rounded, out, self.fx.backend.is_tensor)

    def _rounded(self, x: Any) -> Any:
        assert self.rounding is not None
        signs = self.rounding.choice([-1.0, 1.0], size=tuple(x.shape))
        values = self.fx.backend.ops.to_numpy(x)
        changed = (values * (1 + ROUNDING * signs)).astype(values.dtype)
        return self.fx.backend.ops.from_numpy(changed, x)


class Counting(Rounding):
    """Note the ends of steps."""

    ended: list[Ended]

    def step_end(self, num_timesteps: int, latents: Any) -> None:
        if not hasattr(self, "ended"):
            self.ended = []
        scheduler = getattr(self.pipeline, "scheduler", None)
        whole = bool(getattr(scheduler, "state_in_first_order", True))
        self.ended.append(Ended(self._done, num_timesteps, whole))
        super().step_end(num_timesteps, latents)

    def before(self) -> int:
        """Return how often a denoiser was called before the loop: as much more often in the first
        step than in any other."""
        denoisers = () if self.facts is None else self.facts.denoisers
        first, *others = (sum(name in denoisers for name, _ in calls) for calls in self.steps)
        return max(0, first - max(others))


class Planned(Rounding):
    """Plan which steps are without guidance."""

    def __init__(
        self,
        fx: Framework,
        pipeline: Any,
        facts: PipelineFacts | None,
        batch: int,
        plan: Sequence[bool],
        reference: bool,
        before: int,
    ) -> None:
        """``before``: how often a denoiser is called before the loop, to fill a cache."""
        super().__init__(fx, pipeline, facts, batch, reference)
        self._before = before
        self._plan = [*plan, False]
        self.active = self._plan[0]
        self.after_cut = [self.active]

    def step_end(self, num_timesteps: int, latents: Any) -> None:
        super().step_end(num_timesteps, latents)
        self.active = self._plan[min(len(self.steps), len(self._plan)) - 1]
        self.after_cut[-1] = self.active

    def _call(self, name: str, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._before and self.facts is not None and name in self.facts.denoisers:
            self._before -= 1
            return call(*args, **kwargs)
        return super()._call(name, call, args, kwargs)

    def work(self) -> tuple[int, int]:
        """Count the work without what was called before the loop."""
        facts = self.facts
        assert facts is not None
        loops = (*facts.denoisers, *facts.companions)
        self.steps[0] = [call for call in self.steps[0] if call[0] in loops]
        return super().work()


def per_step(ended: Sequence[Ended], first: Any, after: Callable[[Ended], Any]) -> list[Any]:
    """List what holds in each step: ``first`` in the first of each loop, and in the next what
    ``after`` says of a whole step that has ended."""
    found: list[Any] = []
    for end in ended:
        if end.index == 0:
            now = first
        found.append(now)
        if end.whole:
            now = after(end)
    return found


def whole_steps(ended: Sequence[Ended]) -> list[list[Ended]]:
    """Return the steps of one or several loops, each with its halves."""
    found: list[list[Ended]] = []
    whole = True
    for end in ended:
        if whole or end.index == 0:
            found.append([])
        found[-1].append(end)
        whole = end.whole
    return found


def bounds(ended: Sequence[Ended]) -> tuple[float, float]:
    """Return an interval that leaves out the first step, and of three or more the last."""
    steps = ended[0].steps
    halves = whole_steps(ended[:steps])
    first = halves[1][0].index
    last = halves[-2][-1].index if len(halves) > 2 else steps
    return (first + 0.1) / steps, min(1.0, (last + 0.5) / steps)


def unguided(ended: Sequence[Ended], start: float, stop: float) -> list[bool]:
    """Return the steps without guidance: those of which no half is in the interval."""

    def inside(end: Ended) -> bool:
        return int(end.steps * start) <= end.index <= int(end.steps * stop)

    return [not any(map(inside, step)) for step in whole_steps(ended) for _ in step]
