"""The denoised estimate on the reference backend: the algebra, the data and the page on them."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unicb import Callback, Run, Step, bind
from unicb.latents._x0 import solve
from unicb.latents.denoised import DenoisedEstimate
from unicb.latents.schedules import (
    Level,
    SchedulerFacts,
    _start,
    facts_for_scheduler,
    known_schedulers,
)
from unicb_numpy import backend
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyScheduler

PAGE = Path(__file__).parents[1] / "docs" / "denoised.md"

levels = st.builds(
    Level, st.floats(0.05, 1.0, allow_subnormal=False), st.floats(0.0, 20.0, allow_subnormal=False)
)


def noised(x0: Any, noise: Any, level: Level) -> StrictTensor:
    return StrictTensor(level.alpha * x0 + level.sigma * noise)


def scheduler(name: str, config: dict[str, Any] | None = None, **attributes: Any) -> Any:
    """A stand-in for a framework's scheduler, by the name of its class."""
    made = type(name, (SimpleNamespace,), {})(**attributes)
    made.config = SimpleNamespace(**(config or {}))
    return made


@given(levels, levels, st.integers(0, 2**32 - 1))
def test_two_latents_are_two_equations(start: Level, end: Level, seed: int) -> None:
    determinant = start.sigma * end.alpha - end.sigma * start.alpha
    assume(abs(determinant) > 1e-3 * max(start.sigma, end.sigma, 1e-3))
    x0, noise = np.random.default_rng(seed).normal(size=(2, 3, 4))
    before, after = noised(x0, noise, start), noised(x0, noise, end)
    kept = before.data.copy(), after.data.copy()
    computed = solve(before, after, start, end)
    assert computed is not None
    np.testing.assert_allclose(computed.data, x0, atol=1e-8 * (1 + 1 / abs(determinant)))
    np.testing.assert_array_equal(before.data, kept[0])
    np.testing.assert_array_equal(after.data, kept[1])


@given(levels)
def test_one_equation_is_not_enough(level: Level) -> None:
    x = StrictTensor(np.ones(2))
    assert solve(x, x, level, level) is None


@given(st.floats(0.01, 80), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_the_published_formula(sigma: float, share: float, seed: int) -> None:
    """Euler, by sigmas or by flow: x0 = (s x' - s' x) / (s - s')."""
    following = sigma * share
    assume(sigma - following > 1e-3 * sigma)
    x, y = np.random.default_rng(seed).normal(size=(2, 5)) * (1 + sigma)
    expected = (sigma * y - following * x) / (sigma - following)
    for start, end in (
        (Level(1, sigma), Level(1, following)),
        (Level(1 - sigma, sigma), Level(1 - following, following)),
    ):
        computed = solve(StrictTensor(x), StrictTensor(y), start, end)
        assert computed is not None
        np.testing.assert_allclose(computed.data, expected, rtol=1e-6, atol=1e-9 * (1 + sigma) ** 2)


def test_half_precision_loses_little() -> None:
    """The difference of two latents first, and then its multiple: not the multiples' difference."""
    random = np.random.default_rng(0)
    x0, noise = random.normal(size=(2, 10_000))
    start, end = Level(1.0, 10.0), Level(1.0, 9.0)
    before, after = (
        StrictTensor(noised(x0, noise, at).data.astype(np.float16)) for at in (start, end)
    )
    computed = solve(before, after, start, end)
    assert computed is not None
    assert computed.dtype == np.float16
    least = 9 * (after.data.astype(float) - before.data.astype(float)) + after.data.astype(float)
    assert np.abs(computed.data - least).mean() <= 0.2 * np.abs(least - x0).mean()


class Watch(Callback):
    tensors = ("latents",)

    def __init__(self) -> None:
        self.computed: list[Any] = []

    def on_run_start(self, run: Run) -> None:
        self.estimate: DenoisedEstimate | None = None

    def on_step_end(self, step: Step) -> None:
        self.estimate = self.estimate or DenoisedEstimate(step.pipeline.scheduler, step.ops)
        assert self.estimate.kind == "exact"
        computed = self.estimate.step_end(step["latents"])
        self.computed.append(None if computed is None else computed.data)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("order", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [3, 5, 7, 9, 10])], ids=["euler", "heun"]
)
def test_in_the_toy_pipeline(order: int, expected: list[int], dtype: str) -> None:
    pipe, watch = ToyPipeline(order, dtype), Watch()
    truths: list[Any] = []
    step = pipe.scheduler.step

    def noting(noise: Any, timestep: float, sample: Any) -> Any:
        if pipe.scheduler.state_in_first_order:
            # The toy's steps are of one size: how many have been done, the timestep says.
            truths.append(sample.data - timestep / 1000 * noise.data)
        else:
            truths.append(truths[-1])
        return step(noise, timestep, sample)

    pipe.scheduler.step = noting  # type: ignore[method-assign]
    for _ in range(2):  # the second run begins anew
        watch.computed.clear()
        truths.clear()
        pipe("a prompt", num_inference_steps=6, **bind(pipe, watch))
        assert [i for i, computed in enumerate(watch.computed) if computed is not None] == expected
        for index in expected:
            assert watch.computed[index].dtype == dtype
            np.testing.assert_allclose(watch.computed[index], truths[index], atol=2e-5)


def test_schedule_in_mid_run_begins_anew() -> None:
    made = ToyScheduler()
    made.set_timesteps(4)
    estimate = DenoisedEstimate(made, backend.ops)
    x = StrictTensor(np.ones((1, 4, 2, 2)))
    assert estimate.step_end(x) is None
    assert estimate.step_end(x) is not None
    made.set_timesteps(3)
    assert estimate.step_end(x) is None
    assert estimate.step_end(x) is not None
    assert estimate.step_end(StrictTensor(np.ones((1, 4, 4, 4)))) is None  # another resolution
    assert estimate.step_end(StrictTensor(np.ones((1, 4, 4, 4)))) is None  # more steps than planned


def test_scheduler_that_nobody_steps() -> None:
    made = scheduler("EulerDiscreteScheduler", sigmas=np.array([2.0, 1.0, 0.0]), step_index=None)
    estimate = DenoisedEstimate(made, backend.ops)
    for _ in range(2):
        assert estimate.step_end(StrictTensor(np.ones(3))) is None


def test_kept_x0_is_told_at_once_and_once() -> None:
    made = scheduler(
        "UniPCMultistepScheduler",
        {"predict_x0": True},
        sigmas=np.array([2.0, 1.0, 0.0]),
        step_index=1,
        model_outputs=[None, StrictTensor(np.zeros(3))],
    )
    estimate = DenoisedEstimate(made, backend.ops)
    x = StrictTensor(np.ones(3))
    assert estimate.step_end(x) is made.model_outputs[-1]
    made.step_index = 2
    assert estimate.step_end(x) is None  # nothing new was kept


def test_kept_noise_is_taken_off_the_latents_before() -> None:
    x0, noise = np.random.default_rng(0).normal(size=(2, 5))
    made = scheduler(
        "DEISMultistepScheduler",
        {"use_flow_sigmas": True},
        sigmas=np.array([0.9, 0.6, 0.3, 0.0]),
        step_index=1,
        model_outputs=[None, None],
    )
    estimate = DenoisedEstimate(made, backend.ops)
    assert estimate.step_end(noised(x0, noise, Level(0.4, 0.6))) is None
    made.model_outputs, made.step_index = [None, StrictTensor(noise)], 2
    computed = estimate.step_end(StrictTensor(np.full(5, 7.0)))
    assert computed is not None
    np.testing.assert_allclose(computed.data, x0)
    made.model_outputs, made.step_index = [None, StrictTensor(noise.copy())], 4
    assert estimate.step_end(StrictTensor(np.ones(5))) is None  # a step was missed


@pytest.mark.parametrize(
    ("first", "number", "found"),
    [
        (None, None, 0),
        (None, 3, 2),
        (801.0, None, 0),
        (801.0, 3, 0),  # ends early
        (401.0, 2, 3),
        (601.0, 4, 1),
        (601.0, 3, 2),
        (601.0, None, 1),
        (5.0, 3, 2),  # no timestep of the schedule
    ],
)
def test_where_a_loop_starts(first: float | None, number: int | None, found: int) -> None:
    timesteps = np.array([801.0, 601.0, 601.0, 401.0, 201.0])
    assert _start(timesteps, first, number) == found


def test_unknown_schedulers_are_refused() -> None:
    made = scheduler("NobodysScheduler")
    assert DenoisedEstimate.kind_of(made) is None
    with pytest.raises(ValueError, match="NobodysScheduler cannot be computed"):
        DenoisedEstimate(made, backend.ops)


def test_known_name_without_what_is_known_of_it() -> None:
    assert DenoisedEstimate.kind_of(scheduler("UniPCMultistepScheduler")) is None
    assert DenoisedEstimate.kind_of(scheduler("DDIMScheduler")) is None


def test_scheduler_of_ones_own_says_it_itself() -> None:
    own = type("Own", (), {"unicb_facts": SchedulerFacts("made up"), "step": None})
    assert DenoisedEstimate.kind_of(own()) == "exact"
    other = type("Other", (own,), {"step": None})
    assert DenoisedEstimate.kind_of(other()) is None


def facts_named(name: str) -> SchedulerFacts:
    facts = facts_for_scheduler(type(name, (), {})())
    assert facts is not None
    return facts


def test_every_entry_has_a_source() -> None:
    for name in known_schedulers():
        assert ".py" in facts_named(name).source


def test_the_page_says_what_the_data_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    said = {name: computed.strip() for name, computed in rows}
    assert set(said) == set(known_schedulers()) - {"ToyScheduler"}
    for name, computed in said.items():
        facts = facts_named(name)
        expected = "noisy" if facts.noisy else "exact"
        expected += "".join(f"; estimate with `{each}`" for each in facts.estimate_if)
        expected += "".join(f"; noisy with `{each}`" for each in facts.noisy_if)
        assert computed == expected, name
