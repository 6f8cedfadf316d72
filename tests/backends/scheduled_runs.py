"""Runs of real classes whose loops call no step-end callback."""

from __future__ import annotations

from functools import cache
from typing import Any

import ways
from here import NAME
from without_callback import KINDS, Kind, Plain, looked_at

from unicb import Callback, Step

STEPS = 6
#: In standard deviations; guidance changes at least 20 times as much.
EXACT = 2e-6
FX = ways.framework(NAME)


@cache
def built(name: str, scheduler: str) -> tuple[Kind, Any]:
    """A tiny pipeline of the class, the same one each time."""
    FX.seed()
    return KINDS[name], KINDS[name].build(FX, scheduler)


def plain(name: str, scheduler: str, guided: bool = True, cut_after: int | None = None) -> Plain:
    """A run without unicb; from the step after ``cut_after`` on, the unconditional half is
    overwritten."""
    kind, pipe = built(name, scheduler)
    with looked_at(FX, pipe, kind, cut_after) as seen:
        seen.made = pipe(**kind.arguments(FX, 2, STEPS, guided))
    return seen


class Look(Callback):
    """Notes each step's index, number of steps, timestep and latents."""

    tensors = ("latents",)

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, float]] = []
        self.latents: list[Any] = []

    def on_step_end(self, step: Step) -> None:
        self.steps.append((step.index, step.num_timesteps, step.timestep))
        self.latents.append(step.ops.to_numpy(step["latents"]).copy())
