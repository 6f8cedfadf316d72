"""Runs the scripts in benchmarks/ as their readers would, and reads what they wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from here import NAME, backend
from scripts import Done, run_script

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str, code: int = 0) -> Done:
    """Run a script to its end, which has this code."""
    done = run_script(BENCHMARKS / script, *arguments)
    assert done.returncode == code, done.stderr
    return done


def result(out: Path, script: str) -> dict[str, Any]:
    """What a script wrote into the folder; looks whether it is whole."""
    found: dict[str, Any] = json.loads((out / f"{script}-{NAME}.json").read_text(encoding="utf-8"))
    assert found["versions"].keys() >= {"python", "unicb", "pillow", NAME, backend.package}
    assert found["machine"].keys() >= {"processor", "cores"}
    assert found["figures"]
    assert all(math.isfinite(item["median"]) for item in found["figures"])
    assert all(item["lower"] <= item["median"] <= item["upper"] for item in found["figures"])
    return found


def run_small(script: str, out: Path, *arguments: str) -> dict[str, Any]:
    """What a script writes on this framework with each measurement made once."""
    small = ("--framework", NAME, "--repetitions", "1", "--out", str(out))
    run(f"{script}.py", *small, *arguments)
    return result(out, script)


def medians(found: dict[str, Any], case: str) -> dict[str, float]:
    """The figures of one case, by name."""
    return {item["name"]: item["median"] for item in found["figures"] if item["case"] == case}


def page_of(results: Path) -> str:
    """The page that report.py makes of a folder of results."""
    run("report.py", "--results", str(results))
    return results.with_suffix(".md").read_text(encoding="utf-8")
