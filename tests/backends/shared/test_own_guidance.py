"""examples/own_guidance.py: a guidance method of one's own, on this framework."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from here import NAME, harness

from unicb import CFGCutoff, bind
from unicb.testing import Case

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def rule(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.syspath_prepend(str(EXAMPLES / "shapes"))
    from own_guidance import Noted

    yield Noted
    sys.modules.pop("own_guidance")


def test_the_example(example: Callable[..., list[list[float]]]) -> None:
    few = ("--steps", "8", "--thresholds", "0.5", "0.9997", "1.1")
    rows = example("own_guidance", NAME, *few)
    guided, thresholds, away = zip(*rows, strict=True)
    assert thresholds == (0.5, 0.9997, 1.1)
    assert guided[0] == 2  # what step 0 shows is read at the end of step 1
    assert 2 <= guided[1] < guided[2] == 8
    assert away[0] > away[2] == 0


@pytest.mark.parametrize("prompts", [1, 2])
def test_it_is_a_cut_at_the_step_that_it_chooses(rule: Any, prompts: int) -> None:
    pipe, case = harness.build("text2img"), Case("text2img", prompts=prompts, steps=5)
    early, late = rule(-2.0), rule(2.0)
    for _ in range(2):
        found = harness.run(pipe, case, **bind(pipe, early))
        assert early.guided == 2
        cut = harness.run(pipe, case, **bind(pipe, CFGCutoff(cutoff_step_index=1)))
        assert abs(found - cut).max() < 1e-5 * cut.std()
        whole = harness.run(pipe, case, **bind(pipe, late))
        assert late.guided == 5
        plain = harness.run(pipe, case)
        assert abs(whole - plain).max() < 1e-5 * plain.std()
    assert abs(found - whole).max() > 1e-2 * plain.std()
