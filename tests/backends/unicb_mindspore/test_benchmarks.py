"""The benchmarks run, in small: that what they write is whole, not how fast anything is."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def run(script: str, *arguments: str) -> None:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_preview_cost_and_its_page(tmp_path: Path) -> None:
    out = tmp_path / "results"
    small = ("--repetitions", "1", "--steps", "4", "--size", "8", "--work", "0", "1")
    run("preview_cost.py", "--framework", "mindspore", *small, "--out", str(out))
    found = json.loads((out / "preview_cost-mindspore.json").read_text(encoding="utf-8"))
    assert found["versions"].keys() >= {"python", "unicb", "mindspore", "mindone", "pillow"}
    assert all(math.isfinite(item["median"]) for item in found["figures"])
    cases = {item["case"] for item in found["figures"]}
    assert cases == {f"{c} channels, {w} ms of work" for c in (4, 16) for w in (0, 1)}
    spent = [i["median"] for i in found["figures"] if i["name"].endswith("thread, each step")]
    assert len(spent) == 12
    assert min(spent) > 0

    run("report.py", "--results", str(out))
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "### mindspore" in page
    assert all(f"| {name} |" in page for name in {item["name"] for item in found["figures"]})
