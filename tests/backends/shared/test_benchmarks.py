"""The benchmarks run, in small: that what they write is whole, not how fast anything is."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarked import medians, page_of, run_small
from here import NAME, on


def test_preview_cost_and_its_page(tmp_path: Path) -> None:
    out = tmp_path / "results"
    small = ("--steps", "4", "--size", "8", "--work", "0", "1")
    found = run_small("preview_cost", out, *small)
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

    page = page_of(out)
    assert f"### {NAME}" in page
    assert found["title"] in page
    assert found["date"] in page
    assert found["machine"]["processor"] in page
    assert page.index("| ratio |") < page.index("| ms |")
    assert all(f"| {name} |" in page for name in {item["name"] for item in found["figures"]})


def test_cut_saving(tmp_path: Path) -> None:
    """Rows are counted, and times compared."""
    models = on(torch=["SD, tiny", "SDXL, tiny"], mindspore=["SD, tiny"])
    found = run_small("cut_saving", tmp_path, "--models", *models, "--size", "8", "--steps", "5")
    for model in models:
        figures = medians(found, model)
        assert figures["rows"] == 0.8  # three steps of five have two rows
        assert figures["a step, at guidance 1.0"] > 0
        quotient = figures["cut"] / figures["needed"]
        assert figures["cut, to what is needed"] == pytest.approx(quotient)
    assert [line.split(":")[0] for line in found["settings"]["parameters"]] == models


def test_cross_framework(tmp_path: Path) -> None:
    found = run_small("cross_framework", tmp_path, "--batches", "1", "--steps", "3")
    figures = medians(found, "batch 1")
    assert figures.keys() == {"a step", "a step (processor time)", "a picture"}
    assert 0 < figures["a step"] < figures["a picture"]
