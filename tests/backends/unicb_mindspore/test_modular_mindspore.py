"""mindone's modular pipelines: the one that mindone 0.5.0 can run."""

from __future__ import annotations

import pytest

from zoo.entry import Request
from zoo.framework import MindSpore
from zoo.modular.entries import modular_entries
from zoo.modular.measure import Measured


@pytest.mark.parametrize("name", ["StableDiffusionXLModularPipeline"])
def test_runs_are_those_without_unicb(name: str) -> None:
    fx = MindSpore()
    entry = next(x for x in modular_entries() if x.name == name and fx.name in x.frameworks)
    found = Measured(entry, fx, Request()).all()
    assert found.why == {}
    assert {*found.verdicts.values()} == {"exact"}
