"""GuidanceInterval and GuidanceSchedule on the frameworks' pipelines."""

from __future__ import annotations

import guidance_runs as runs
import pytest
from here import NAME, on

#: For MindSpore, one class for each kind of hook and of output: what moves predictions and brings
#: guidance back knows no framework, and is run on every way of guiding on the other one.
SOME = ("StableDiffusionPipeline", "ZImagePipeline", "FluxPipeline", "LuminaPipeline")
TITLES = runs.chosen(NAME, on(torch=runs.CHOSEN, mindspore=dict.fromkeys(SOME, "")))


@pytest.mark.parametrize("title", TITLES)
def test_both_are_exact(title: str) -> None:
    found = runs.outcome(NAME, title)
    assert (found.verdict, found.why) == ("exact", "")


def test_the_titles_are_there() -> None:
    assert {*SOME} <= {*runs.CHOSEN}
    assert len(TITLES) >= 3
