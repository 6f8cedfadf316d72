"""A callback that looks at a run, and changes nothing."""

from __future__ import annotations

from typing import Any

from unicb import Callback, Step


class Look(Callback):
    """Notes what each step has."""

    tensors = ("latents",)

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.latents: list[Any] = []
        self.runs: list[Any] = []

    def on_run_start(self, run: Any) -> None:
        self.runs.append(run)

    def on_step_end(self, step: Step) -> None:
        self.seen.append((step.index, step.num_timesteps))
        self.latents.append(step["latents"].data.copy())
