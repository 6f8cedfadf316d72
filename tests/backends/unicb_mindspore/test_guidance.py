"""GuidanceInterval and GuidanceSchedule on mindone's pipelines."""

from __future__ import annotations

import guidance_runs
import pytest

NAME = "mindspore"
#: What moves predictions and brings guidance back knows no framework; it is run on every way of
#: guiding on the other one. Here, one class for each kind of hook and of output.
TITLES = ("StableDiffusionPipeline", "ZImagePipeline", "FluxPipeline", "LuminaPipeline")


@pytest.mark.parametrize("title", guidance_runs.chosen(NAME, dict.fromkeys(TITLES, "")))
def test_both_are_exact(title: str) -> None:
    found = guidance_runs.outcome(NAME, title)
    assert (found.verdict, found.why) == ("exact", "")


def test_the_titles_are_there() -> None:
    assert set(TITLES) <= {*guidance_runs.CHOSEN}
    assert len(guidance_runs.chosen(NAME, dict.fromkeys(TITLES, ""))) >= 3
