"""Whole pipelines with tiny random weights: the zoo's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "instruments"))

from zoo.entry import Entry, Request
from zoo.families import entries
from zoo.framework import FRAMEWORKS, Framework

#: Families of the zoo, by the classes that benchmarks use.
FAMILIES = {
    "StableDiffusionPipeline": "stable_diffusion",
    "StableDiffusionXLPipeline": "stable_diffusion",
    "LatentConsistencyModelPipeline": "stable_diffusion",
    "FluxPipeline": "flux",
    "WanPipeline": "wan",
}


def zoo_framework(name: str) -> Framework:
    """Return the zoo's view of a framework, on a CPU and one thread."""
    return FRAMEWORKS[name]()


def entry_of(class_name: str) -> Entry:
    """Return the zoo's plain entry for one of :data:`FAMILIES`."""
    found = [one for one in entries(FAMILIES[class_name]) if one.title == class_name]
    return found[0]


def build(fx: Framework, class_name: str) -> Any:
    """Return a tiny pipeline of that class."""
    fx.seed()
    return entry_of(class_name).build(fx)


def arguments(fx: Framework, pipeline: Any, steps: int) -> dict[str, Any]:
    """Make the arguments of a call of such a pipeline, for one picture of a guided prompt."""
    entry = entry_of(type(pipeline).__name__)
    return entry.arguments(fx, pipeline, Request(steps=steps))
