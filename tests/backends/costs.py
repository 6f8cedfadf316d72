"""Checks of the benchmarks of what unicb itself costs: that they are whole, not how fast it is."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unicb.pipelines import facts, facts_for
from unicb_numpy.pipelines import ToyPipeline

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LIBRARIES = {"torch": "diffusers", "mindspore": "mindone.diffusers"}


def results(script: str, framework: str, out: Path, *arguments: str) -> list[dict[str, Any]]:
    """The figures of a script, run once in small."""
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), "--framework", framework]
    command += ["--repetitions", "1", "--out", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / f"{script}-{framework}.json").read_text(encoding="utf-8"))
    assert found["versions"].keys() >= {"python", "unicb", framework}
    assert all(math.isfinite(item["median"]) for item in found["figures"])
    figures: list[dict[str, Any]] = found["figures"]
    return figures


def check_machinery_cost(framework: str, tmp_path: Path) -> None:
    figures = results("machinery_cost", framework, tmp_path, "--steps", "4")
    assert {item["case"] for item in figures} == {"toy pipeline", "tiny Stable Diffusion"}
    ratios = {item["name"] for item in figures if item["unit"] == "ratio"}
    assert ratios == {f"{w}: bind to MultiPipelineCallbacks" for w in ("waiting", "clamping")}
    aims = {item["name"]: item["at_most"] for item in figures if item["unit"] == "us"}
    assert aims["waiting: bind"] == aims["waiting: machinery"] == 15
    assert aims["waiting: MultiPipelineCallbacks"] is None


def check_bind_cost(framework: str, classes: set[str], tmp_path: Path) -> None:
    figures = results("bind_cost", framework, tmp_path)
    assert {item["case"] for item in figures} == {"in a new process", "a new class", "again"}
    assert {item["name"] for item in figures} == classes
    assert all(item["median"] > 0 for item in figures)


def check_contestants_do_the_same(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the one that does less would be the cheapest."""
    import machinery_cost

    monkeypatch.setattr(machinery_cost, "LIMIT", 0.5)
    pipe = ToyPipeline()
    made = machinery_cost.contestants(pipe, LIBRARIES[framework])
    pictures = {
        name: pipe("x", num_inference_steps=4, output_type="latent", **make())
        for name, make in made.items()
    }
    for name, latents in pictures.items():
        same_as = "clamping: one function" if name.startswith("clamping") else "nothing"
        np.testing.assert_array_equal(latents, pictures[same_as], name)
    assert np.abs(pictures["clamping: bind"]).max() <= 0.5
    assert np.abs(pictures["nothing"]).max() > 0.5


def check_passes_are_seen() -> None:
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


def check_circumstances_are_what_they_say() -> None:
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
