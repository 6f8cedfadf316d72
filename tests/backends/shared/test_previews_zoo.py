"""Previews show what the pipeline decodes, with every layout of latents; and nothing changes."""

from __future__ import annotations

import previewed
import pytest
import ways
from here import NAME

from zoo.preview_report import OTHERS, PICTURES


@pytest.mark.parametrize("title", previewed.chosen(NAME))
def test_preview_is_right(title: str) -> None:
    found = previewed.shown(NAME, title)
    assert (found.verdict, found.why) == ("right", "")


def test_every_layout_is_there() -> None:
    """No layout and no rule for the size is left to the long run over all classes."""
    chosen = previewed.rules(NAME, previewed.chosen(NAME))
    assert chosen == previewed.rules(NAME, ways.all_entries(NAME))


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
