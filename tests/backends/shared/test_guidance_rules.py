"""Guidance rules on the frameworks' pipelines: plain guidance of another scale against a call with
it, on one class for every way that loops guide in."""

from __future__ import annotations

from typing import Any

import guidance_runs
import numpy as np
import pytest
import ways
from here import NAME, on

from unicb import AdaptiveProjectedGuidance, GuidanceRule, UnsupportedPipelineError, bind
from unicb.pipelines import facts_for
from zoo.entry import CASES
from zoo.guidance import _Runs
from zoo.measure import error

#: For MindSpore, one for each kind of hook and of formula.
SOME = ("StableDiffusionPipeline", "Kandinsky3Pipeline", "FluxPipeline", "LuminaPipeline")
TITLES = on(
    torch=[*guidance_runs.chosen(NAME), "LTX2Pipeline (all kinds of guidance)"],
    mindspore=SOME,
)
#: Classes on which ``bind`` refuses a rule, and what it says.
REFUSED = {
    "AceStepPipeline": "not known to be u",
    "HunyuanImagePipeline": "its guider combines",
    "StableDiffusionInstructPix2PixPipeline": "not known to be u",
}


class Plain(GuidanceRule):
    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: Any) -> Any:
        return unconditional + (conditional - unconditional) * scale


@pytest.mark.parametrize("title", TITLES)
def test_plain_guidance_of_another_scale(title: str) -> None:
    entry, fx = ways.all_entries(NAME)[title], ways.framework(NAME)
    pipe = ways.pipeline(NAME, title)
    facts = facts_for(pipe)
    assert facts is not None
    case = guidance_runs.CHOSEN.get(title, "one prompt")
    runs = _Runs(entry, fx, pipe, CASES[case])
    runs.full = runs.plain(runs.meter())
    wanted = runs.plain(runs.meter(), 2.5)
    more = facts.combination == "from_conditional"
    found = runs.ours(Plain(2.5 + more), runs.meter())
    assert error(runs.full, wanted) > 1e-3
    assert error(found, wanted) < 1e-5
    # One that is not plain, and keeps something, is the same in each run.
    rule = AdaptiveProjectedGuidance(2.5 + more, eta=0.0, momentum=-0.5)
    first, second = (runs.ours(rule, runs.meter()) for _ in range(2))
    assert error(first, wanted) > 1e-4
    assert error(second, first) <= fx.repeats_to
    assert np.isfinite(first).all()
    assert error(runs.plain(runs.meter()), runs.full) <= fx.repeats_to


@pytest.mark.parametrize("title", [title for title in REFUSED if title in ways.all_entries(NAME)])
def test_what_is_refused(title: str) -> None:
    with pytest.raises(UnsupportedPipelineError, match=REFUSED[title]):
        bind(ways.pipeline(NAME, title), Plain(3.0))
