"""Trajectory, NaNGuard, StepTimer, Progress and LatentCorrection on the framework.

The conformance suite runs most of that too, in each dtype: on MindSpore, where runs take long, a
case of each is enough here.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from here import backend, diffusers, harness, on

from unicb import Callback, Step, bind
from unicb.callbacks.correction import LatentCorrection
from unicb.callbacks.nan_guard import LatentsNotFiniteError, NaNGuard
from unicb.callbacks.timing import Progress, ProgressState, StepTimer
from unicb.callbacks.trajectory import Trajectory, load_trajectory
from unicb.testing import Case

CASE = Case("text2img", prompts=2, steps=4)
DTYPES = ("float16", "float32")
BAD = (math.nan, math.inf, -math.inf)
dtypes = pytest.mark.parametrize("dtype", on(torch=DTYPES, mindspore=DTYPES[:1]))


class Cast(Callback):
    """Puts other latents into the loop: of a dtype, and with bad values after one step."""

    tensors = ("latents",)

    def __init__(self, dtype: str, at: int = -1, value: float = 0.0) -> None:
        self.dtype, self.at, self.value = dtype, at, value

    def on_step_end(self, step: Step) -> None:
        host = step.ops.to_numpy(step["latents"]).astype(self.dtype)
        if step.index == self.at:
            host[1, 0, 0, :2] = self.value
        step["latents"] = harness.tensor(host, self.dtype)


class Back(Callback):
    """Lets the loop go on in float32, as it began; notes what it got."""

    tensors = ("latents",)

    def __init__(self) -> None:
        self.hosts: list[Any] = []

    def on_step_end(self, step: Step) -> None:
        host = step.ops.to_numpy(step["latents"])
        self.hosts.append(host)
        step["latents"] = harness.tensor(host.astype(np.float32), "float32")


@pytest.mark.parametrize(
    ("dtype", "suffix"),
    on(
        torch=[(dtype, suffix) for dtype in DTYPES for suffix in (".npz", ".safetensors")],
        mindspore=[("float16", ".safetensors")],
    ),
)
def test_trajectory(tmp_path: Path, dtype: str, suffix: str) -> None:
    pipe, back, path = harness.build(CASE.kind), Back(), tmp_path / f"run{suffix}"
    plain = harness.run(pipe, CASE, **bind(pipe, Cast(dtype), Back()))
    callbacks = bind(pipe, Cast(dtype), Trajectory(path), back)
    recorded = harness.run(pipe, CASE, **callbacks)
    np.testing.assert_array_equal(plain, recorded)
    found = load_trajectory(path)
    assert found.latents.dtype == dtype
    np.testing.assert_array_equal(found.latents, np.stack(back.hosts))
    assert found.steps.tolist() == list(range(CASE.steps))
    timesteps = np.asarray(backend.ops.to_numpy(pipe.scheduler.timesteps))
    np.testing.assert_allclose(found.timesteps, timesteps)
    assert np.isnan(found.sigmas).all()  # DDIM has no sigmas


@pytest.mark.parametrize(
    ("scheduler", "order"),
    [
        ("EulerDiscreteScheduler", 1),
        ("DPMSolverMultistepScheduler", 1),
        ("HeunDiscreteScheduler", 2),
    ],
)
def test_sigmas(tmp_path: Path, scheduler: str, order: int) -> None:
    """Of the latents after each step: the schedule's, without its first."""
    pipe, path = harness.build(CASE.kind), tmp_path / "run.npz"
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    harness.run(pipe, CASE, **bind(pipe, Trajectory(path)))
    found = load_trajectory(path)
    sigmas = pipe.scheduler.sigmas
    if backend.is_tensor(sigmas):
        sigmas = backend.ops.to_numpy(sigmas)
    assert len(found.steps) == order * CASE.steps - (order - 1)
    np.testing.assert_allclose(found.sigmas, sigmas[1:], rtol=1e-6)
    assert found.sigmas[-1] == 0
    assert found.sigmas[0] > found.sigmas[order] > 0


@dtypes
@pytest.mark.parametrize("value", on(torch=BAD, mindspore=BAD[1:2]))
def test_guard(dtype: str, value: float) -> None:
    pipe = harness.build(CASE.kind)
    spoils = Cast(dtype, at=2, value=value)
    with pytest.raises(LatentsNotFiniteError) as caught:
        harness.run(pipe, CASE, **bind(pipe, spoils, NaNGuard(), Back()))
    assert caught.value.step == 2
    assert caught.value.share == 2 / (2 * 4 * 8 * 8)
    message = str(caught.value)
    assert "in the pictures 1 of 2" in message
    assert f"(dtype {dtype})" in message
    assert ("65504" in message) == (dtype == "float16")


@dtypes
def test_guard_lets_finite_latents_pass(dtype: str) -> None:
    pipe = harness.build(CASE.kind)
    plain = harness.run(pipe, CASE, **bind(pipe, Cast(dtype), Back()))
    callbacks = bind(pipe, Cast(dtype), NaNGuard(), Back())
    np.testing.assert_array_equal(plain, harness.run(pipe, CASE, **callbacks))


def test_guard_stops() -> None:
    pipe, kept = harness.build(CASE.kind), Back()
    harness.run(pipe, CASE, **bind(pipe, kept))
    spoils = Cast("float32", at=2, value=math.nan)
    with pytest.warns(RuntimeWarning, match="went back to the latents of step 1"):
        found = harness.run(pipe, CASE, **bind(pipe, spoils, NaNGuard("stop")))
    np.testing.assert_array_equal(found, kept.hosts[1])


def test_timing() -> None:
    pipe, timer = harness.build(CASE.kind), StepTimer()
    states: list[ProgressState] = []
    plain = harness.run(pipe, CASE)
    timed = harness.run(pipe, CASE, **bind(pipe, timer, Progress(states.append)))
    np.testing.assert_array_equal(plain, timed)
    assert timer.times is not None
    assert timer.times.first > 0
    assert len(timer.times.seconds) == CASE.steps - 1
    assert min(timer.times.seconds) > 0
    assert [state.step for state in states] == list(range(CASE.steps))
    assert states[-1].remaining == 0
    assert states[-1].elapsed >= timer.times.total


@dtypes
def test_correction(dtype: str) -> None:
    pipe, before, after = harness.build(CASE.kind), Back(), Back()
    correction = LatentCorrection(centre=0.5, clamp=1.5, stretch=2.0)
    cast = Cast(dtype)
    harness.run(pipe, CASE, **bind(pipe, before, cast, correction, after))
    within = 5e-3 if dtype == "float16" else 1e-5
    for x, y in zip(before.hosts, after.hosts, strict=True):
        assert y.dtype == dtype
        x = x.astype(dtype).astype(np.float64)
        x = x - 0.5 * x.mean(axis=(2, 3), keepdims=True)
        size = np.sqrt((x**2).mean(axis=(1, 2, 3), keepdims=True))
        bound, knee = 1.5 * size, 0.875 * 1.5 * size
        over = np.maximum(np.abs(x) - knee, 0)
        bent = np.sign(x) * (np.minimum(np.abs(x), knee) + over / (1 + over / (bound - knee)))
        grown = np.maximum(1, 2.0 * size / np.abs(bent).max(axis=(1, 2, 3), keepdims=True))
        assert (grown > 1).all()
        np.testing.assert_allclose(y, bent * grown, rtol=0, atol=within * float(size.max()))
