"""The recipes of docs/recipes.md do what the page says, on the framework."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

import pytest
from here import NAME, diffusers, framework, harness
from recipe_page import (
    PAGE,
    SPARED,
    Ran,
    check_resume,
    check_resumes,
    checks,
    finished_by,
    run_page,
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("recipes")
    return run_page(harness.build("prompts"), folder, finished_by(harness))


@checks
def test_recipe(ran: Ran, check: Callable[[Ran], None]) -> None:
    check(ran)


def test_resume(ran: Ran, tmp_path: Path) -> None:
    check_resume(ran, tmp_path)


def test_resume_with_a_scheduler_of_several_steps(ran: Ran, tmp_path: Path) -> None:
    pipe = harness.build("prompts")
    scheduler = diffusers.DPMSolverMultistepScheduler
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    assert check_resumes(ran, pipe, tmp_path) == SPARED


def test_functions_for_memory_are_there() -> None:
    """Those that the page names for this framework."""
    named = re.findall(rf"\| `{NAME}\.([\w.]+)`", PAGE.read_text("utf-8"))
    assert len(named) >= 2
    assert all(callable(attrgetter(name)(framework)) for name in named)
