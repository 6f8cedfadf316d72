"""The benchmarks of guidance run, in small: that what they write is whole, and true."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarked import BENCHMARKS, medians, page_of, result, run
from PIL import Image


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the scripts importable."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def model(modules: None) -> Any:
    """A tiny SDXL."""
    import cut_saving
    from _frameworks import framework

    return cut_saving.MODELS["SDXL, tiny"](framework("torch"), 8)


def test_a_cut_that_saves_nothing_is_reported(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or its time would be compared with what fewer rows need."""
    import cut_saving

    runs = {
        "uncut": [cut_saving.timed(model, 5, 5.0)],
        "cut": [cut_saving.timed(model, 5, 5.0, cut=True)],
        "off": [cut_saving.timed(model, 5, 1.0)],
    }
    assert [run.rows for (run,) in runs.values()] == [10, 8, 5]
    assert cut_saving.share_of_rows(runs, 5, 1) == 0.8
    monkeypatch.setattr(cut_saving, "bind", lambda *_: {})
    runs["cut"].append(cut_saving.timed(model, 5, 5.0, cut=True))
    with pytest.raises(SystemExit, match=r"\(cut\) computed 10 rows, not 8"):
        cut_saving.share_of_rows(runs, 5, 1)


def test_the_ideal_is_by_rows(modules: None) -> None:
    import cut_saving

    runs = {"uncut": 160, "cut": 116, "off": 80}
    rows = {name: [SimpleNamespace(rows=count)] for name, count in runs.items()}
    assert cut_saving.share_of_rows(rows, 20, 4) == 0.725


def test_what_is_needed_is_of_the_same_round(modules: None) -> None:
    import cut_saving

    times = {"uncut": [10.0, 20.0], "cut": [8.0, 17.0], "off": [6.0, 12.0]}
    runs = {key: [SimpleNamespace(whole=one) for one in found] for key, found in times.items()}
    figures = cut_saving.compared("case", runs, "whole", "", 0.25, 1.03)
    bounds = [(item.lower, item.upper) for item in figures]  # quartiles of two rounds
    assert bounds[0] == pytest.approx((0.8125, 0.8375))
    assert bounds[1] == pytest.approx((0.7, 0.7))
    assert bounds[2] == pytest.approx((8 / 7 + 0.25 / 14, 17 / 14 - 0.25 / 14))
    assert [item.at_most for item in figures] == [None, None, 1.03]


def test_cut_quality_its_page_and_its_plot(tmp_path: Path) -> None:
    out, picture = tmp_path / "results", tmp_path / "plot.png"
    ways = ("CFGCutoff(0.4)", "CFGCutoff(1.0)", "GuidanceInterval(0.2, 0.6)", "guidance scale 1.0")
    small = ("--prompts", "3", "--steps", "5", "--processes", "1", "--picture", str(picture))
    run("cut_quality.py", *small, "--ways", *ways, "--out", str(out))
    found = result(out, "cut_quality")
    assert medians(found, "rows") == {
        "uncut": 100,
        "CFGCutoff(0.4)": 80,
        "CFGCutoff(1.0)": 100,
        "GuidanceInterval(0.2, 0.6)": 80,  # steps 1, 2 and 3
        "guidance scale 1.0": 50,
    }
    differences = medians(found, "difference to the uncut picture")
    assert differences["CFGCutoff(1.0)"] == 0
    assert 0 < differences["CFGCutoff(0.4)"] < differences["guidance scale 1.0"]
    assert medians(found, "another verdict")["CFGCutoff(1.0)"] == 0
    thirds = {round(value / 100 * 3, 9) for value in medians(found, "right").values()}
    assert thirds <= {0, 1, 2, 3}
    assert all(item["rounds"] == 3 for item in found["figures"])

    page = page_of(out)
    assert found["notes"]
    assert all(f"- {note}\n" in page for note in found["notes"])
    assert "](plot.png)\n" in page
    assert "| CFGCutoff(0.4) |" in page

    with Image.open(picture) as plot:
        colours = np.unique(np.asarray(plot.convert("RGB")).reshape(-1, 3), axis=0)
    assert {(31, 119, 180), (255, 127, 14)} <= set(map(tuple, colours.tolist()))  # both families
    before = picture.read_bytes()
    picture.unlink()
    run("cut_quality.py", "--draw", "--picture", str(picture), "--out", str(out))
    assert picture.read_bytes() == before


def test_cut_quality_refuses_what_it_cannot_do(
    modules: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import cut_quality

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            cut_quality.main(arguments)
        assert exit_.value.code == 2
        return capsys.readouterr().err

    assert "--guidance must be above 1" in refused("--guidance", "1", "--no-picture")
    assert "must be at least 2" in refused("--prompts", "1", "--no-picture")
    monkeypatch.setattr(cut_quality, "find_spec", lambda name: None)
    assert "needs matplotlib" in refused()


def _findings(modules_: Any, rights: dict[str, list[bool]]) -> list[str]:
    """The findings of pictures that are right or wrong as given, by way."""
    scene = modules_.Scene("star", "red", "blue")
    wrong = modules_.Verdict("star", "red", "green")
    right = modules_.Verdict("star", "red", "blue")
    outcomes = {
        name: modules_.Outcome(10, [right if one else wrong for one in found], [1.0] * len(found))
        for name, found in rights.items()
    }
    count = len(next(iter(rights.values())))
    return modules_.findings(list(modules_.figures_of(outcomes, [scene] * count)))


def test_findings_say_what_the_figures_show(modules: None) -> None:
    import cut_quality

    good, bad = [True] * 100, [True] * 60 + [False] * 40
    found = " ".join(
        _findings(
            cut_quality,
            {
                "uncut": good,
                "CFGCutoff(0.0)": bad,
                "CFGCutoff(0.2)": good,
                "CFGCutoff(0.4)": bad,
                "CFGCutoff(0.6)": good,
                "GuidanceInterval(0.1, 0.5)": good,
                "GuidanceInterval(0.5, 0.9)": bad,
                "guidance scale 1.0": bad,
            },
        )
    )
    assert "100.0 % are right, and 60.0 % at scale 1.0" in found
    assert "60.0 % right, -40.0 points" in found
    assert "From CFGCutoff(0.6) on" in found  # not from 0.2, for 0.4 loses again
    assert "GuidanceInterval(0.1, 0.5) does best" in found
    assert "GuidanceInterval(0.5, 0.9) worst" in found
    assert "does best; the later" not in found
    worse = [True] * 50 + [False] * 50
    ways = {"CFGCutoff(0.4)": good, "GuidanceInterval(0.1, 0.5)": bad}
    ways |= {"uncut": good, "GuidanceInterval(0.5, 0.9)": worse}
    found = " ".join(_findings(cut_quality, ways))
    assert "CFGCutoff(0.4) has the first, and does best; the later" in found
    lossy = " ".join(_findings(cut_quality, {"uncut": good, "CFGCutoff(1.0)": bad}))
    assert "no cut has a loss" not in lossy


def test_guidance_cuda_rehearses_on_a_cpu(tmp_path: Path) -> None:
    tiny = ("--device", "cpu", "--models", "SDXL, tiny", "FLUX, tiny", "--batches", "2")
    run("guidance_cuda.py", *tiny, "--steps", "5", "--repetitions", "1", "--out", str(tmp_path))
    found = result(tmp_path, "guidance_cuda")
    cases = {item["case"] for item in found["figures"]}
    assert cases == {"SDXL, tiny, batch 2", "FLUX, tiny, batch 2"}
    for case in cases:
        figures = medians(found, case)
        assert figures["rows"] == 0.8
        assert figures["three callbacks: on the loop's thread"] > 0
        assert figures.keys() >= {"cut, to what is needed", "Preview: added"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_guidance_cuda_says_that_there_is_none(
    tmp_path: Path, modules: None, capsys: pytest.CaptureFixture[str]
) -> None:
    import guidance_cuda

    assert guidance_cuda.main(["--out", str(tmp_path)]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_waits_are_forbidden_from_the_first_step_to_the_end(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import guidance_cuda

    modes: list[str] = []
    seen: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def way(model: Any, form: str) -> dict[str, Any]:
        def look(_: Any, __: int, ___: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            seen.append(modes[-1])
            return tensors

        return {"callback_on_step_end": look}

    assert guidance_cuda.stopped(model, "sdxl", way, 4) == ""
    assert seen == ["error"] * 4
    assert modes[-1] == "default"

    def waits(model: Any, form: str) -> dict[str, Any]:
        def fail(*_: Any) -> None:
            raise RuntimeError("called a synchronizing CUDA operation")

        return {"callback_on_step_end": fail}

    assert "synchronizing" in guidance_cuda.stopped(model, "sdxl", waits, 4)
    assert modes[-1] == "default"
    figures, notes = guidance_cuda.check_debug_mode("case", model, "sdxl")
    assert [(item.median, item.at_most) for item in figures] == [(0, 0)] * 3
    assert notes == []
