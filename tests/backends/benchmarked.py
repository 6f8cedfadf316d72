"""Runs the scripts in benchmarks/ as their readers would, and reads what they wrote."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str) -> None:
    """Run a script to its end, without an error."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def result(path: Path, framework: str) -> dict[str, Any]:
    """What a script wrote; looks whether it is whole."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert found["versions"].keys() >= {"python", "unicb", framework}
    assert found["machine"].keys() >= {"processor", "cores"}
    assert found["figures"]
    assert all(math.isfinite(item["median"]) for item in found["figures"])
    assert all(item["lower"] <= item["median"] <= item["upper"] for item in found["figures"])
    return found


def medians(found: dict[str, Any], case: str) -> dict[str, float]:
    """The figures of one case, by name."""
    return {item["name"]: item["median"] for item in found["figures"] if item["case"] == case}


def page_of(results: Path) -> str:
    """The page that report.py makes of a folder of results."""
    run("report.py", "--results", str(results))
    return results.with_suffix(".md").read_text(encoding="utf-8")


def check_cut_saving(out: Path, framework: str, *models: str) -> None:
    """A small run of cut_saving.py: rows are counted, and times compared."""
    small = ("--size", "8", "--steps", "5", "--repetitions", "1")
    run("cut_saving.py", "--framework", framework, "--models", *models, *small, "--out", str(out))
    found = result(out / f"cut_saving-{framework}.json", framework)
    for model in models:
        figures = medians(found, model)
        assert figures["rows"] == 0.8  # three steps of five have two rows
        assert figures["a step, at guidance 1.0"] > 0
        quotient = figures["cut"] / figures["needed"]
        assert figures["cut, to what is needed"] == pytest.approx(quotient)
    assert [told.split(":")[0] for told in found["settings"]["parameters"]] == list(models)


def check_cross_framework(out: Path, framework: str) -> None:
    """A small run of cross_framework.py."""
    small = ("--batches", "1", "--steps", "3", "--repetitions", "1")
    run("cross_framework.py", "--framework", framework, *small, "--out", str(out))
    figures = medians(result(out / f"cross_framework-{framework}.json", framework), "batch 1")
    assert figures.keys() == {"a step", "a step (processor time)", "a picture"}
    assert 0 < figures["a step"] < figures["a picture"]
