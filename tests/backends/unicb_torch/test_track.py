"""Trajectory, NaNGuard, StepTimer, Progress and LatentCorrection on this framework."""

from __future__ import annotations

import math
from pathlib import Path

import diffusers
import pytest
import tracked

from unicb_torch.harness import harness


@tracked.dtypes
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_trajectory(tmp_path: Path, dtype: str, suffix: str) -> None:
    tracked.check_trajectory(harness, tmp_path, dtype, suffix)


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


@tracked.dtypes
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_guard(dtype: str, value: float) -> None:
    tracked.check_guard(harness, dtype, value)


@tracked.dtypes
def test_guard_lets_finite_latents_pass(dtype: str) -> None:
    tracked.check_guard_lets_pass(harness, dtype)


def test_guard_stops() -> None:
    tracked.check_guard_stops(harness)


def test_timing() -> None:
    tracked.check_timing(harness)


@tracked.dtypes
def test_correction(dtype: str) -> None:
    tracked.check_correction(harness, dtype)
