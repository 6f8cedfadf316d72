"""The same latents and prompts give both frameworks the same pictures, previews, cut and stop."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from figures import Distance, Noted, latents_apart, pictures_apart, previews_apart
from recording import PROMPTS, STEPS, Record, record_all
from sides import SIDES

from unicb import Callback, CFGCutoff, Interrupt

SCHEDULERS = [
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
]
CUT = 0.4
GUIDED = 11  # the cut comes at the end of step int(25 * 0.4)
STOP = 14

#: In levels of 255.
SAME_PICTURE = 2.0
#: A colour at the edge between two levels may fall to either side; few are so near to one.
SAME_PREVIEW = 1.0
SAME_PREVIEWS = 0.002
#: Their standard deviation is about 1 (with Euler's scheduler about 15 to begin with).
SAME_LATENTS = 2e-4

#: The records of one scheduler's runs, one for each framework.
Records = dict[str, Record]
Runs = Callable[[str], Records]


@pytest.fixture(scope="module")
def cut(pipes: dict[str, Any]) -> Runs:
    """A run of four pictures on each framework, with guidance cut."""
    return cache(lambda scheduler: record_all(SIDES, pipes, scheduler, CFGCutoff(CUT)))


@pytest.fixture(scope="module")
def stopped(pipes: dict[str, Any]) -> Runs:
    """A run of one picture on each framework, with guidance cut, and stopped after a step."""
    callbacks = CFGCutoff(CUT), Interrupt(STOP, picture="latents")
    return cache(lambda name: record_all(SIDES, pipes, name, *callbacks, prompts=PROMPTS[:1]))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
class TestParity:
    def test_pictures(self, cut: Runs, figures: Noted, scheduler: str) -> None:
        records = cut(scheduler)
        apart = pictures_apart(**records)
        figures.add(scheduler, "pictures", apart)
        for record in records.values():
            assert record.pictures.shape == (len(PROMPTS), 64, 64, 3)
            # The four are pictures, and four different ones.
            assert record.pictures.std(axis=(1, 2)).max(axis=-1).min() > 0.05
            assert all(np.abs(a - b).max() > 0.1 for a, b in combinations(record.pictures, 2))
        assert apart.largest < SAME_PICTURE

    def test_previews(self, cut: Runs, figures: Noted, scheduler: str) -> None:
        records = cut(scheduler)
        apart = previews_apart(**records)
        figures.add(scheduler, "previews", apart)
        for record in records.values():
            assert len(record.previews) == STEPS
            assert record.previews[0].shape == (len(PROMPTS), 16, 16, 3)
        assert apart.largest <= SAME_PREVIEW
        assert apart.mean < SAME_PREVIEWS

    def test_steps_and_latents(self, cut: Runs, figures: Noted, scheduler: str) -> None:
        records = cut(scheduler)
        apart = latents_apart(**records)
        figures.add(scheduler, "latents", apart)
        a, b = records.values()
        assert a.timesteps == pytest.approx(b.timesteps, rel=1e-6)
        assert len(a.timesteps) == STEPS
        assert apart.largest < SAME_LATENTS

    def test_cut(self, cut: Runs, scheduler: str) -> None:
        """The same steps have guidance on both, and the others half the rows."""
        rows = len(PROMPTS)
        for record in cut(scheduler).values():
            assert record.rows == [2 * rows] * GUIDED + [rows] * (STEPS - GUIDED)

    def test_stop(self, stopped: Runs, cut: Runs, figures: Noted, scheduler: str) -> None:
        """Both stop after the same step, with the latents of the full run there, and decode
        them to the same picture.
        """
        records = stopped(scheduler)
        apart = pictures_apart(**records)
        figures.add(scheduler, "stopped pictures", apart)
        for name, record in records.items():
            assert record.rows == [2] * GUIDED + [1] * (STOP + 1 - GUIDED)
            assert len(record.timesteps) == len(record.previews) == STOP + 1
            there = cut(scheduler)[name].latents[STOP][:1]
            assert Distance.between(record.latents[-1], there).largest < SAME_LATENTS
        assert latents_apart(**records).largest < SAME_LATENTS
        assert previews_apart(**records).largest <= SAME_PREVIEW
        assert apart.largest < SAME_PICTURE


@pytest.fixture(scope="module")
def other_seed(pipes: dict[str, Any]) -> Record:
    return _on_torch(pipes, CFGCutoff(CUT), seed=1)


@pytest.fixture(scope="module")
def uncut(pipes: dict[str, Any]) -> Record:
    return _on_torch(pipes)


class TestTheMeasure:
    """Where runs do differ, what is compared above is far apart: none of it passes by itself."""

    def test_other_latents(self, cut: Runs, other_seed: Record) -> None:
        mindspore = cut(SCHEDULERS[0])["mindspore"]
        assert pictures_apart(other_seed, mindspore).largest > 10 * SAME_PICTURE
        assert previews_apart(other_seed, mindspore).largest > 10 * SAME_PREVIEW
        assert latents_apart(other_seed, mindspore).largest > 10 * SAME_LATENTS

    def test_no_cut(self, cut: Runs, uncut: Record) -> None:
        mindspore = cut(SCHEDULERS[0])["mindspore"]
        assert pictures_apart(uncut, mindspore).largest > 10 * SAME_PICTURE
        assert latents_apart(uncut, mindspore).largest > 10 * SAME_LATENTS

    @pytest.mark.parametrize(("one", "other"), list(combinations(SCHEDULERS, 2)))
    def test_another_scheduler(self, cut: Runs, one: str, other: str) -> None:
        torch, mindspore = cut(one)["torch"], cut(other)["mindspore"]
        assert pictures_apart(torch, mindspore).largest > 2 * SAME_PICTURE
        assert latents_apart(torch, mindspore).largest > 10 * SAME_LATENTS


def _on_torch(pipes: dict[str, Any], *callbacks: Callback, seed: int = 0) -> Record:
    torch = {"torch": SIDES["torch"]}
    return record_all(torch, pipes, SCHEDULERS[0], *callbacks, seed=seed)["torch"]
