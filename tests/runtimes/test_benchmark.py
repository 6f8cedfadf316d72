"""benchmarks/runtime_cost.py, in small: that what it writes is whole, and that it can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runtime import FOLDER, NAME, harness

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str) -> None:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_writes_a_page(tmp_path: Path) -> None:
    out = tmp_path / "results"
    small = ("--repetitions", "1", "--steps", "6", "--folder", str(FOLDER))
    run("runtime_cost.py", "--framework", NAME, "--out", str(out), *small)
    found = json.loads((out / f"runtime_cost-{NAME}.json").read_text(encoding="utf-8"))
    assert {"unicb", "torch", "diffusers"} < found["versions"].keys()
    assert "not installed" not in found["versions"].values()
    cases = {item["case"] for item in found["figures"]}
    assert {"torch", {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}[NAME]} <= cases
    assert all(item["median"] > 0 for item in found["figures"])
    run("report.py", "--results", str(out))
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| a step after the cut |" in page


def test_a_pipeline_that_is_not_cut_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import runtime_cost

    class NoCut:
        def __init__(self, *_: Any) -> None: ...

        def __call__(self, pipe: Any, index: int, t: Any, tensors: Any) -> Any:
            return tensors

    pipe = harness.build("text2img")
    runtime_cost.prove(NAME, pipe, pipe, 6)
    other = harness.build("text2img")
    other.scheduler = type(other.scheduler).from_config(other.scheduler.config, beta_end=0.02)
    with pytest.raises(SystemExit, match="draws something else"):
        runtime_cost.prove(NAME, pipe, other, 6)
    monkeypatch.setattr(runtime_cost, "CFGCutoff", NoCut)
    with pytest.raises(SystemExit, match="nothing is proven"):
        runtime_cost.prove(NAME, pipe, pipe, 6)
