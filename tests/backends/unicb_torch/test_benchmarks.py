"""The benchmarks run, in small: that what they write is whole, not how fast anything is."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from unicb import Preview, PreviewFrame, bind

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
SMALL = ("--repetitions", "1", "--steps", "4")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the scripts importable."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def run(script: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def result(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert found["versions"].keys() >= {"python", "unicb", "torch", "diffusers", "pillow"}
    assert found["machine"].keys() >= {"processor", "cores"}
    assert all(math.isfinite(item["median"]) for item in found["figures"])
    assert all(item["lower"] <= item["median"] <= item["upper"] for item in found["figures"])
    return found


def test_preview_cost_and_its_page(tmp_path: Path) -> None:
    out = tmp_path / "results"
    run("preview_cost.py", *SMALL, "--size", "8", "--work", "0", "1", "--out", str(out))
    found = result(out / "preview_cost-torch.json")
    cases = {item["case"] for item in found["figures"]}
    assert cases == {f"{c} channels, {w} ms of work" for c in (4, 16) for w in (0, 1)}
    names = {item["name"] for item in found["figures"] if item["unit"] == "ratio"}
    assert names >= {
        f"{source}: {what}"
        for source in ("noisy", "denoised")
        for what in ("added time", "on the loop's thread")
    }
    spent = [i["median"] for i in found["figures"] if i["name"].endswith("thread, each step")]
    assert len(spent) == 12
    assert min(spent) > 0

    run("report.py", "--results", str(out))
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert found["title"] in page
    assert found["date"] in page
    assert found["machine"]["processor"] in page
    assert page.index("| ratio |") < page.index("| ms |")
    assert all(f"| {name} |" in page for name in {item["name"] for item in found["figures"]})


def test_preview_cost_refuses_runs_that_lose_previews(tmp_path: Path, modules: None) -> None:
    """Or a preview that is never written would be the cheapest."""
    import preview_cost
    from _frameworks import framework

    scene = preview_cost.Scene(framework("torch"), 4, 8, 4, lambda: None)

    def lazy(folder: Path) -> dict[str, Any]:
        return {"callback_on_step_end": lambda pipeline, step, timestep, tensors: tensors}

    with pytest.raises(SystemExit, match="only 0 of 4 previews"):
        preview_cost.with_callback(scene, lazy)


def test_the_scenes_denoise(modules: None) -> None:
    """Previews of it show what a preview of a run would: noise first, and then the picture."""
    import preview_cost
    from _frameworks import framework
    from _loop import natural_latents

    for channels in (4, 16):
        scene = preview_cost.Scene(framework("torch"), channels, 8, 6, lambda: None)
        seen: list[torch.Tensor] = []

        def look(pipeline: Any, step: int, timestep: Any, tensors: Any, seen: Any = seen) -> Any:
            seen.append(tensors["latents"])
            return tensors

        scene.run(callback_on_step_end=look)
        clean = torch.tensor(natural_latents((1, channels, 8, 8)))
        assert len(seen) == 6
        assert (seen[-1] - clean).abs().max() < 1e-4
        assert (seen[0] - clean).abs().max() > 1

        frames: list[PreviewFrame] = []
        scene.run(**bind(scene.pipeline, Preview(frames, factors=scene.form)))
        assert [frame.source for frame in frames] == ["noisy", *["exact"] * 5]


def test_preview_cuda_rehearses_on_a_cpu(tmp_path: Path) -> None:
    run("preview_cuda.py", "--device", "cpu", "--tiny", *SMALL, "--out", str(tmp_path))
    found = result(tmp_path / "preview_cuda-torch.json")
    medians = {item["name"]: item["median"] for item in found["figures"]}
    assert medians["unicb: differing numbers"] == 0
    assert medians["unicb: missing files"] == medians["guide: missing files"] == 0
    assert medians["unicb: in the callback"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_preview_cuda_says_that_there_is_none(tmp_path: Path) -> None:
    done = run("preview_cuda.py", "--out", str(tmp_path), code=2)
    assert "no CUDA device" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_waits_are_told_by_thread_and_time(modules: None) -> None:
    import preview_cuda

    def call(name: str, tid: int, ts: float, cat: str = "cuda_runtime") -> dict[str, Any]:
        return {"ph": "X", "cat": cat, "name": name, "tid": tid, "ts": ts, "dur": 1.0}

    mark = {**call(preview_cuda.MARK, 7, 10.0, "user_annotation"), "dur": 10.0}
    on_device = {**mark, "cat": "gpu_user_annotation", "tid": 0}
    events = [
        mark,
        on_device,
        call("cudaLaunchKernel", 7, 11.0),
        call("cudaStreamSynchronize", 7, 12.0),
        call("cudaStreamSynchronize", 8, 12.0),
        call("cudaEventSynchronize", 8, 13.0),
        call("cudaDeviceSynchronize", 7, 9.0),
        call("cudaDeviceSynchronize", 7, 21.0),
        call("aten::item", 7, 12.0, "cpu_op"),
        {"ph": "M", "name": "process_name"},
    ]
    loop, others = preview_cuda.waits({"traceEvents": events})
    assert loop == {"cudaLaunchKernel": 1, "cudaStreamSynchronize": 1}
    assert others == {"cudaStreamSynchronize": 1, "cudaEventSynchronize": 1}
    assert [name for name in loop if preview_cuda.is_wait(name)] == ["cudaStreamSynchronize"]
    assert preview_cuda.is_wait("cudaMemcpy")
    assert not preview_cuda.is_wait("cudaMemcpyAsync")
    with pytest.raises(ValueError, match="0 marks"):
        preview_cuda.waits({"traceEvents": events[1:]})


def test_stop_cost(tmp_path: Path) -> None:
    run("stop_cost.py", "--repetitions", "1", "--out", str(tmp_path))
    found = result(tmp_path / "stop_cost-torch.json")
    names = [item["name"] for item in found["figures"]]
    assert names == ["check", "Interrupt(...)", "Interrupt(deadline=...)"]
    assert all(item["median"] > 0 for item in found["figures"])


def test_rounds_take_turns_and_medians_have_quartiles(modules: None) -> None:
    from _common import figure, interleaved

    calls: list[str] = []
    found = interleaved(
        {name: lambda name=name: calls.append(name) or len(calls) for name in "abc"}, 3, "test"
    )
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"
    assert found == {"a": [4, 9, 11], "b": [5, 7, 12], "c": [6, 8, 10]}

    measured = figure("case", "name", "ms", [5, 1, 2, 4, 3], at_most=2)
    assert (measured.lower, measured.median, measured.upper) == (2, 3, 4)
    assert (measured.rounds, measured.at_most) == (5, 2)
