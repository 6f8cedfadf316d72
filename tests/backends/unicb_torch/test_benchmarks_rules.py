"""The benchmarks of guidance rules run, in small: that what they write is whole, and true."""

from __future__ import annotations

from functools import partial
from pathlib import Path
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


def test_rule_cost_compares_what_gives_the_same(
    modules: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import rule_cost

    made = dict(rule_cost.contestants((2, 4, 16, 16)))
    assert len(made) == 2 * len(rule_cost.methods())
    for name in rule_cost.methods():
        for _ in range(2):  # with what momentum has kept
            ours, theirs = made[f"ours: {name}"](), made[f"theirs: {name}"]()
            # Their tangential one decomposes in float32.
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.std()))
    monkeypatch.setattr(rule_cost, "SHAPES", ((2, 4, 16, 16),))
    assert rule_cost.main(["--repetitions", "2", "--out", str(tmp_path)]) == 0
    figures = result(tmp_path, "rule_cost")["figures"]
    assert {item["name"] for item in figures} == {"ours", "theirs", "ours to theirs"}
    assert all(item["median"] > 0 for item in figures)


def test_rule_quality_its_page_and_its_sheet(tmp_path: Path) -> None:
    out, picture = tmp_path / "results", tmp_path / "sheet.png"
    ways = ("zero star, one step of zeros", "tangential", "AdaptiveGuidance(0.9998)")
    small = ("--prompts", "8", "--steps", "6", "--processes", "1", "--picture", str(picture))
    run("rule_quality.py", *small, "--ways", *ways, "--out", str(out))
    found = result(out, "rule_quality")
    rows = medians(found, "rows")
    assert rows["uncut"] == rows["tangential"] == rows["zero star, one step of zeros"] == 100
    assert 50 < rows["AdaptiveGuidance(0.9998)"] < 100
    differences = medians(found, "difference to the uncut picture")
    assert differences["zero star, one step of zeros"] > 3 * differences["tangential"] > 0
    assert all(item["rounds"] == 8 for item in found["figures"])
    assert "](sheet.png)\n" in page_of(out)
    with Image.open(picture) as sheet:
        assert sheet.height > 64 * 4


def test_adaptive_guidance_is_drawn_as_one_by_one(modules: None) -> None:
    import rule_quality
    from cut_quality import Settings, Studio, Way

    way = rule_quality.WAYS["AdaptiveGuidance(0.9998)"]
    studio = Studio(Settings(4, 12, 7.0, {}))
    together, rows = way.draw(studio, range(4))
    rule = Way(partial(rule_quality.AdaptiveGuidance, 0.9998))
    alone = [studio.draw(rule, [index]) for index in range(4)]
    assert rows == sum(count for _, count in alone)
    assert len({count for _, count in alone}) > 1  # else all would be one group
    for one, ([other], _) in zip(together, alone, strict=True):
        assert np.abs(np.asarray(one, float) - np.asarray(other, float)).max() <= 2


def test_findings_say_what_the_figures_show(modules: None) -> None:
    import cut_quality
    import rule_quality

    scene = cut_quality.Scene("star", "red", "blue")
    verdicts = {
        True: cut_quality.Verdict("star", "red", "blue"),
        False: cut_quality.Verdict("star", "red", "green"),
    }
    rights = {"uncut": 80, "better": 100, "worse": 40, "same": 80, "AdaptiveGuidance(0.5)": 70}
    outcomes: dict[str, Any] = {
        name: cut_quality.Outcome(
            75 if "Adaptive" in name else 100,
            [verdicts[number < right] for number in range(100)],
            [1.0] * 100,
        )
        for name, right in rights.items()
    }
    figures = list(cut_quality.figures_of(outcomes, [scene] * 100))
    cuts = rule_quality.Cuts(500, [(70.0, 60.0), (80.0, 80.0)])
    more, fewer, same, adaptive = rule_quality.findings(figures, cuts)
    assert more.startswith("More pictures are right than with plain guidance: better: +20.0")
    assert fewer.startswith("Fewer pictures are right than with plain guidance: worse: -40.0")
    assert same == "No difference that 100 prompts can tell from none: same."
    assert "75.0 % of the rows and has 70.0 % right" in adaptive
    assert adaptive.endswith("between those measured on 500 prompts, has 70.0 %.")
    assert len(list(rule_quality.findings(figures, rule_quality.Cuts(0, ())))) == 3
