"""Every way of cutting guidance, with every layout of rows, on one class each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from unicb.guidance._inference import _agree, infer
from unicb.pipelines import PipelineFacts, facts_owner
from zoo.coverage import classes, facts_named
from zoo.entry import CASES, Entry
from zoo.families import entries, family_names
from zoo.framework import FRAMEWORKS, Framework
from zoo.measure import Outcome, measure

#: Entries of the zoo: what they stand for is seen in their facts, see ``way``.
CHOSEN = (
    "StableDiffusionPipeline",
    "StableDiffusionPipeline (IP-Adapter)",
    "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionPAGPipeline",
    "LuminaPipeline",
    "AnimateDiffControlNetPipeline",
    "AnimateDiffPAGPipeline",
    "ZImagePipeline",
    "WanPipeline",
    "FluxPipeline",
    "FluxControlNetPipeline",
)


def way(facts: PipelineFacts) -> tuple[Any, ...]:
    """What two classes share that guidance is cut on in the same way."""
    return facts.cfg, facts.order, facts.listed, facts.frames_axis is not None


@cache
def framework(name: str) -> Framework:
    return FRAMEWORKS[name]()


@cache
def all_entries(name: str) -> dict[str, Entry]:
    """Entries that can be built on the framework, by title."""
    found = [entry for family in family_names() for entry in entries(family)]
    return {e.title: e for e in found if name in e.frameworks and not e.not_built}


def chosen(name: str) -> list[str]:
    return [title for title in CHOSEN if title in all_entries(name)]


def ways_of(name: str, titles: Any) -> set[tuple[Any, ...]]:
    """The ways of those entries' classes."""
    facts = [facts_named(all_entries(name)[title].name) for title in titles]
    return {way(found) for found in facts if found is not None and found.cfg != "none"}


@cache
def pipeline(name: str, title: str) -> Any:
    fx = framework(name)
    fx.seed()
    return all_entries(name)[title].build(fx)


def outcome(name: str, title: str, case: str) -> Outcome | None:
    """None for a case that the pipeline cannot do by itself."""
    entry = all_entries(name)[title]
    if case in entry.impossible:
        return None
    return measure(entry, framework(name), pipeline(name, title), CASES[case])


def unknown_classes(name: str) -> list[str]:
    """Classes of the framework that take a step-end callback, and that no data file has."""
    found = classes(framework(name))
    return [title for title, kind in found.items() if facts_owner(kind) is None]


def contradictions(name: str) -> Iterator[str]:
    """Classes about which the data and the class's own code, where it tells, disagree."""
    for title, kind in classes(framework(name)).items():
        facts, found = facts_named(title), infer(kind)
        if facts is None or found is None or facts.cfg == "none":
            continue
        if not _agree(found, facts) or not set(found.denoisers) <= set(facts.denoisers):
            yield f"{title}: {found} is not {facts}"


def inferred_classes(name: str) -> int:
    return sum(infer(kind) is not None for kind in classes(framework(name)).values())
