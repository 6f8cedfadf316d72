"""Faults where a step ends with a call of the scheduler."""

from __future__ import annotations

from typing import Any

from mutation import after, instead, mutant

from unicb.guidance import _unproven
from unicb.run import sources
from unicb.run.sources import SchedulerSource


def _misses_one(step: Any) -> Any:
    """The third step of a pass is nobody's."""

    def missing(self: SchedulerSource, frame: Any, args: Any, kwargs: Any) -> Any:
        if self._done == 2 and not hasattr(self, "missed"):
            self.missed = True  # type: ignore[attr-defined]
            return sources.unheld(self._scheduler, "step")(*args, **kwargs)
        return step(self, frame, args, kwargs)

    return missing


def _counts_twice(index: Any) -> Any:
    def counted(self: SchedulerSource, frame: Any) -> int:
        found: int = index(self, frame)
        self._done += 1
        return found

    return counted


def _never_released(stop: Any) -> Any:
    def stopped(self: SchedulerSource, failed: bool) -> None:
        self._hold = None
        stop(self, failed)

    return stopped


LOOPS = (
    mutant(
        "scheduler's source misses a step",
        "the third step is not told",
        "loop_tells_every_step",
        SchedulerSource,
        "step",
        _misses_one,
    ),
    mutant(
        "scheduler's source counts a step twice",
        "the next one is two further",
        "loop_tells_every_step",
        SchedulerSource,
        "_index",
        _counts_twice,
    ),
    mutant(
        "scheduler's source loses edits",
        "the loop gets what the scheduler has made",
        "loop_goes_on_with_an_edit",
        sources,
        "with_part",
        instead(lambda out, part, value: out),
    ),
    mutant(
        "scheduler's source gives other latents",
        "callbacks get twice what the scheduler has made",
        "loop_tells_every_step",
        sources,
        "part_of",
        after(lambda part, *_: part * 2.0),
    ),
    mutant(
        "scheduler's source stays on the scheduler",
        "what it holds is not released",
        "loop_is_left_as_it_was",
        SchedulerSource,
        "stop",
        _never_released,
    ),
    mutant(
        "step that is looked at is made anew wrongly",
        "a hundredth more than its parts",
        "loop_is_cut",
        _unproven,
        "remade",
        after(lambda made, *_: made * 1.01),
    ),
)
