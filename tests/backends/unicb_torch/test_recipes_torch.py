"""Resuming a run, as docs/recipes.md does it: with schedulers that keep something, beside a cut,
and with a ControlNet. What it does on each framework is in ``shared/test_recipes.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from here import diffusers, harness
from recipe_page import (
    SPARED,
    STEPS,
    Ran,
    check_resume_beside_a_cut,
    check_resumes,
    finished_by,
    run_page,
)

from unicb.testing import Case

#: Classes, with their settings, and with arguments of the call.
SCHEDULERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("DDIMScheduler", {}, {"eta": 1.0}),  # draws random numbers at every step
    ("DPMSolverMultistepScheduler", {"solver_order": 3}, {}),
    ("EulerAncestralDiscreteScheduler", {}, {}),
    ("EulerDiscreteScheduler", {}, {}),
    ("HeunDiscreteScheduler", {}, {}),
    ("PNDMScheduler", {"skip_prk_steps": True}, {}),
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("recipes")
    return run_page(harness.build("prompts"), folder, finished_by(harness))


def with_scheduler(name: str, **settings: Any) -> Any:
    pipe = harness.build("prompts")
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **settings)
    return pipe


@pytest.mark.parametrize(("name", "settings", "arguments"), SCHEDULERS)
def test_resume_with_a_scheduler(
    ran: Ran, tmp_path: Path, name: str, settings: dict[str, Any], arguments: dict[str, Any]
) -> None:
    pipe = with_scheduler(name, **settings)
    assert check_resumes(ran, pipe, tmp_path, **arguments) == SPARED


@pytest.mark.parametrize(
    ("name", "settings"),
    [("UniPCMultistepScheduler", {}), ("PNDMScheduler", {"skip_prk_steps": False})],
)
def test_resume_with_a_scheduler_that_keeps_more(
    ran: Ran, tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    pipe = with_scheduler(name, **settings)
    with pytest.raises(ValueError, match="the 8 steps computed again do not lead to"):
        check_resumes(ran, pipe, tmp_path)
    assert check_resumes(ran, pipe, tmp_path, again=16) == 0


def test_resume_beside_a_cut(ran: Ran, tmp_path: Path) -> None:
    check_resume_beside_a_cut(ran, tmp_path, ran.pipe)


def test_resume_with_a_controlnet(ran: Ran, tmp_path: Path) -> None:
    """Which is called in the same steps, and left out in the same."""

    def run(callbacks: Any) -> Any:
        return harness.run(callbacks.pipeline, Case("controlnet", steps=STEPS), **callbacks)

    with_controlnet = Ran(ran.names, ran.folder, ran.wandb, run)
    assert check_resumes(with_controlnet, harness.build("controlnet"), tmp_path) == 2 * SPARED
