"""Guidance rules on the frameworks' pipelines: plain guidance against a call with that scale, on
one class for every way that loops guide in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import guidance_runs
import numpy as np
import pytest
import ways
from here import NAME, on

from unicb import AdaptiveProjectedGuidance, UnsupportedPipelineError, bind
from unicb.pipelines import facts_for
from zoo import rules
from zoo.entry import CASES
from zoo.fingerprints import taken_as
from zoo.guidance import Runs
from zoo.measure import error
from zoo.rules import Plain, Ruled, measure

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


def case_of(title: str) -> Any:
    return CASES[guidance_runs.CHOSEN.get(title, "one prompt")]


@pytest.mark.parametrize("title", TITLES)
def test_plain_guidance_of_the_call_and_of_another_scale(title: str) -> None:
    about = ways.all_entries(NAME)[title], ways.framework(NAME), ways.pipeline(NAME, title)
    assert replace(measure(*about, case_of(title)), difference=None) == Ruled("exact")


#: What is not seen of loops, and what the error says of it.
UNSEEN = {
    **dict.fromkeys(
        ("LuminaPipeline", "CosmosVideoToWorldPipeline", "Cosmos3OmniPipeline"),
        "was not seen to be u + g",
    ),
    "LTX2Pipeline (guidance of the sound alone)": "only the first can be seen",
    "LTX2Pipeline (all kinds of guidance)": "only the first can be seen",
}


@pytest.mark.parametrize("title", TITLES)
def test_a_loop_that_is_seen_instead_of_known(title: str) -> None:
    """As if nobody had proven the facts on it: what its first step shows decides."""
    about = ways.all_entries(NAME)[title], ways.framework(NAME), ways.pipeline(NAME, title)
    with taken_as(type(about[-1]), proven=False):
        found = measure(*about, case_of(title))
    if title in UNSEEN:
        assert found.verdict == "refused"
        assert UNSEEN[title] in found.why
    else:
        assert replace(found, difference=None) == Ruled("exact")


class Wrong(Plain):
    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: Any) -> Any:
        return super().combine(unconditional, conditional, scale * 1.001, step)


def test_what_is_not_plain_guidance_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    about = ways.framework(NAME), ways.pipeline(NAME, SOME[0]), case_of(SOME[0])
    monkeypatch.setattr(rules, "Plain", Wrong)
    found = measure(ways.all_entries(NAME)[SOME[0]], *about)
    assert found.verdict == "wrong"
    assert "differs from the reference" in found.why


@pytest.mark.parametrize("title", TITLES)
def test_what_a_rule_keeps_is_of_one_run(title: str) -> None:
    entry, fx = ways.all_entries(NAME)[title], ways.framework(NAME)
    pipe = ways.pipeline(NAME, title)
    facts = facts_for(pipe)
    assert facts is not None
    runs = Runs(entry, fx, pipe, case_of(title))
    more = facts.combination == "from_conditional"
    plain = runs.ours(Plain(2.5 + more), runs.meter())
    rule = AdaptiveProjectedGuidance(2.5 + more, eta=0.0, momentum=-0.5)
    first, second = (runs.ours(rule, runs.meter()) for _ in range(2))
    assert error(first, plain) > 1e-4
    assert error(second, first) <= fx.repeats_to
    assert np.isfinite(first).all()


@pytest.mark.parametrize("title", [title for title in REFUSED if title in ways.all_entries(NAME)])
def test_what_is_refused(title: str) -> None:
    with pytest.raises(UnsupportedPipelineError, match=REFUSED[title]):
        bind(ways.pipeline(NAME, title), Plain(3.0))
