"""The recipes of docs/recipes.md do what the page says: on the numpy reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe_page import (
    SPARED,
    Ran,
    check_early_stop,
    check_resume,
    check_resume_beside_a_cut,
    check_resumes,
    checks,
    run_page,
)

from unicb import PipelineFacts, UnsupportedPipelineError, bind
from unicb_numpy.pipelines import ToyPipeline

SAME = {"prompt": "a red star", "num_inference_steps": 20, "seed": 7}


def finished(called: Any, **arguments: Any) -> Any:
    return np.array(called(**arguments, output_type="latent"))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_page(ToyPipeline(), tmp_path_factory.mktemp("recipes"), finished, dict(SAME))


@checks
def test_recipe(ran: Ran, check: Callable[[Ran], None]) -> None:
    check(ran)


def test_early_stop_waits_for_every_picture(ran: Ran) -> None:
    check_early_stop(ran, prompt=["a red star", "a blue cross", "a ring"])


def test_resume(ran: Ran, tmp_path: Path) -> None:
    check_resume(ran, tmp_path)


def test_resume_beside_a_cut(ran: Ran, tmp_path: Path) -> None:
    check_resume_beside_a_cut(ran, tmp_path, ran.pipe)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_resume_in_half_steps(ran: Ran, tmp_path: Path, dtype: str) -> None:
    assert check_resumes(ran, ToyPipeline(2, dtype), tmp_path) == SPARED


def test_colours_of_packed_latents_are_refused(ran: Ran) -> None:
    class Packed(ToyPipeline):
        unicb_facts = PipelineFacts(
            source="this test", denoisers=("unet",), latents="sd", layout="b(hw)(cpq)"
        )

    match = ran.names["MatchColours"](ran.folder / "colours.npz")
    with pytest.raises(UnsupportedPipelineError, match="cannot read latents of Packed"):
        bind(Packed(), match)
