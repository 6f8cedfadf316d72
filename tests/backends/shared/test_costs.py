"""The benchmarks of what unicb itself costs run, in small: that they are whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarked import BENCHMARKS, run_small
from here import NAME, diffusers

from unicb.pipelines import facts, facts_for
from unicb_numpy.pipelines import ToyPipeline


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the scripts importable."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_machinery_cost(tmp_path: Path) -> None:
    figures = run_small("machinery_cost", tmp_path, "--steps", "4")["figures"]
    assert {item["case"] for item in figures} == {"toy pipeline", "tiny Stable Diffusion"}
    ratios = {item["name"] for item in figures if item["unit"] == "ratio"}
    assert ratios == {f"{w}: bind to MultiPipelineCallbacks" for w in ("waiting", "clamping")}
    aims = {item["name"]: item["at_most"] for item in figures if item["unit"] == "us"}
    assert aims["waiting: bind"] == aims["waiting: machinery"] == 15
    assert aims["waiting: MultiPipelineCallbacks"] is None


def test_bind_cost(tmp_path: Path) -> None:
    import bind_cost

    figures = run_small("bind_cost", tmp_path)["figures"]
    assert {item["case"] for item in figures} == {"in a new process", "a new class", "again"}
    assert {item["name"] for item in figures} == {*bind_cost.CLASSES[NAME]}
    assert all(item["median"] > 0 for item in figures)


def test_contestants_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the one that does less would be the cheapest."""
    import machinery_cost

    monkeypatch.setattr(machinery_cost, "LIMIT", 0.5)
    pipe = ToyPipeline()
    made = machinery_cost.contestants(pipe, diffusers.__name__)
    pictures = {
        name: pipe("x", num_inference_steps=4, output_type="latent", **make())
        for name, make in made.items()
    }
    for name, latents in pictures.items():
        same_as = "clamping: one function" if name.startswith("clamping") else "nothing"
        np.testing.assert_array_equal(latents, pictures[same_as], name)
    assert np.abs(pictures["clamping: bind"]).max() <= 0.5
    assert np.abs(pictures["nothing"]).max() > 0.5


def test_passes_are_seen() -> None:
    import machinery_cost

    pipe = ToyPipeline()
    expected = pipe("x", num_inference_steps=5)
    seconds = machinery_cost.passes(pipe)
    np.testing.assert_array_equal(pipe("x", num_inference_steps=5), expected)
    assert len(seconds) == 5
    assert min(seconds[1:]) > 0

    class Blind(ToyPipeline):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return None

    blind = Blind()
    found = machinery_cost.passes(blind)
    with pytest.raises(SystemExit, match="only 0 passes"):
        machinery_cost.microseconds(found, blind, dict)


def test_circumstances_are_what_they_say() -> None:
    import bind_cost

    pipe = ToyPipeline()
    cases = dict(bind_cost.circumstances(pipe))
    facts.known_pipelines()
    cases["a new class"]()
    first = type(pipe)
    cases["a new class"]()
    assert first is not type(pipe) is not ToyPipeline
    assert type(pipe).__name__ == "ToyPipeline"
    assert type(pipe).__mro__[1] is ToyPipeline
    assert facts_for(pipe) is ToyPipeline.unicb_facts
    assert facts._table.cache_info().currsize == 1
    cases["in a new process"]()
    assert facts._table.cache_info().currsize == 0
