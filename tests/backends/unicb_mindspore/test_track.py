"""Trajectory and NaNGuard on this framework, as far as the conformance suite does not run them: it
has each dtype, and StepTimer, Progress and LatentCorrection."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tracked
from mindone import diffusers

from unicb_mindspore.harness import harness


def test_trajectory_in_safetensors(tmp_path: Path) -> None:
    tracked.check_trajectory(harness, tmp_path, "float16", ".safetensors")


@pytest.mark.parametrize(
    ("scheduler", "order"),
    [
        ("EulerDiscreteScheduler", 1),
        ("DPMSolverMultistepScheduler", 1),
        ("HeunDiscreteScheduler", 2),
    ],
)
def test_sigmas(tmp_path: Path, scheduler: str, order: int) -> None:
    tracked.check_sigmas(harness, tmp_path, getattr(diffusers, scheduler), order)


def test_guard_says_what_it_found() -> None:
    tracked.check_guard(harness, "float16", math.inf)


def test_guard_stops() -> None:
    tracked.check_guard_stops(harness)
