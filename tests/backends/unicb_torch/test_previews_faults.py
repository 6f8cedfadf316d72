"""The measure that previews of the zoo's classes are right by notices faults.

It knows no framework: what it notices on this one, it does on the other.
"""

from __future__ import annotations

import numpy as np
import previewed
import pytest

from zoo.previews import SAME, agreement

NAME = "torch"


@pytest.mark.parametrize("title", previewed.chosen(NAME, previewed.WRONG))
def test_wrong_facts_are_noticed(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = previewed.shown_with_wrong_facts(NAME, title, monkeypatch)
    assert found.verdict == "wrong"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (previewed.one_step_is_missing, "3 frames instead of 4"),
        (previewed.latents_are_changed, "differ from those of a plain run"),
    ],
)
def test_faults_are_noticed(fault, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    found = previewed.shown(NAME, "LTXPipeline")
    assert found.verdict == "wrong"
    assert why in found.why


@pytest.mark.parametrize("fault", previewed.MISPLACED)
def test_misplaced_cells_are_noticed(fault: str) -> None:
    cells = previewed.cells()
    assert agreement(3 * cells + 1, cells) >= SAME
    assert agreement(previewed.MISPLACED[fault](cells), cells) < SAME
    assert np.isfinite(agreement(np.zeros_like(cells), cells))
