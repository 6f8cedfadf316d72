"""Guidance in an interval and by a schedule, on one class for every way that loops guide in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import ways

from unicb.guidance._scale import read_at_each_step
from unicb.pipelines import PipelineFacts, facts_for
from zoo.coverage import facts_named
from zoo.entry import CASES
from zoo.guidance import Guided, measure

#: Entries of the zoo, and the case that each is run with.
CHOSEN: Mapping[str, str] = MappingProxyType(
    {
        "StableDiffusionPipeline": "two prompts",
        "StableDiffusionControlNetImg2ImgPipeline": "two prompts",
        "CogView4Pipeline": "one prompt",
        "FluxPipeline": "two images per prompt",
        "WanPipeline (two experts)": "one prompt",
        "ZImagePipeline": "two prompts",
        "Krea2Pipeline": "one prompt",
        "LuminaPipeline": "two prompts",
        "StableDiffusionPAGPipeline": "one prompt",
        "CosmosVideoToWorldPipeline": "one prompt",
        "AnyFlowFARPipeline (two chunks)": "one prompt",
        "QwenImage21Pipeline": "one prompt",
        "Ideogram4Pipeline": "one prompt",
        "Cosmos3OmniPipeline": "one prompt",
        "LTX2Pipeline (guidance of the sound alone)": "one prompt",
    }
)
#: Entries whose schedule is refused, in bind or before a picture is spoilt, and what that says.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "AceStepPipeline": "keeps a copy of its scale, and combines the parts of its guidance",
        "HunyuanImagePipeline": "set those, on pipeline.guider",
        "OmniGenPipeline (input image)": "it called its transformer with 3 parts",
        "CogVideoXPipeline (dynamic guidance)": "use_dynamic_cfg, and sets the scale itself",
    }
)


def way(facts: PipelineFacts) -> tuple[Any, ...]:
    """What two classes share whose guidance is cut, restored and scaled in the same way."""
    local = None if read_at_each_step(facts) else (facts.cfg == "batch", facts.combination)
    return facts.cfg, local, bool(facts.fills), facts.tail


def chosen(name: str, titles: Mapping[str, str] = CHOSEN) -> list[str]:
    return [title for title in titles if title in ways.all_entries(name)]


@cache
def outcome(name: str, title: str) -> Guided:
    entry, case = ways.all_entries(name)[title], CHOSEN.get(title, "one prompt")
    assert case not in entry.impossible
    return measure(entry, ways.framework(name), ways.pipeline(name, title), CASES[case])


def ways_left_out(name: str, titles: list[str]) -> set[tuple[Any, ...]]:
    """Ways of the classes that guide which none of those entries goes; but for what is refused."""
    found = {entry.name: facts_named(entry.name) for entry in ways.all_entries(name).values()}
    every = {way(f) for f in found.values() if f and f.cfg != "none" and f.combination != "other"}
    facts = [facts_for(ways.pipeline(name, title)) for title in titles]
    return every - {way(f) for f in facts if f is not None}
