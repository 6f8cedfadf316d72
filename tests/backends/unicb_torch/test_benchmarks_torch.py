"""The benchmarks that run on PyTorch alone, in small; and what they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarked import BENCHMARKS, result, run, run_small

from unicb import Preview, PreviewFrame, bind

SMALL = ("--repetitions", "1", "--steps", "4")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the scripts importable."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


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
    found = result(tmp_path, "preview_cuda")
    figures = {item["name"]: item["median"] for item in found["figures"]}
    assert figures["unicb: differing numbers"] == 0
    assert figures["unicb: missing files"] == figures["guide: missing files"] == 0
    assert figures["unicb: in the callback"] > 0


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
    found = run_small("stop_cost", tmp_path)
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
