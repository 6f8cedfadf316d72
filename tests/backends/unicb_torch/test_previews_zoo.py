"""Previews show what the pipeline decodes, with every layout of latents; and nothing changes."""

from __future__ import annotations

import numpy as np
import previewed
import pytest
import ways

from zoo.preview_report import OTHERS, PICTURES
from zoo.previews import SAME, agreement

NAME = "torch"


@pytest.mark.parametrize("title", previewed.chosen(NAME))
def test_preview_is_right(title: str) -> None:
    found = previewed.shown(NAME, title)
    assert (found.verdict, found.why) == ("right", "")


def test_every_layout_is_there() -> None:
    """No layout and no rule for the size is left to the long run over all classes."""
    chosen = previewed.rules(NAME, previewed.chosen(NAME))
    assert chosen == previewed.rules(NAME, ways.all_entries(NAME))


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


@pytest.mark.parametrize(
    "title", [t for t in ways.all_entries(NAME) if t in OTHERS or t in PICTURES]
)
def test_refused_at_bind(title: str) -> None:
    found = previewed.refused(NAME, title)
    assert found is not None
    assert found.verdict == "refused"


def test_refusals_are_explained() -> None:
    """The page about coverage says why, of every class without a layout."""
    assert previewed.without_layout(NAME) <= {*OTHERS, *PICTURES}


@pytest.mark.parametrize("name", [n for n in previewed.PUBLISHED if n in ways.all_entries(NAME)])
def test_published_vae_has_colours(name: str) -> None:
    assert previewed.format_found(NAME, name) == previewed.PUBLISHED[name][0]
