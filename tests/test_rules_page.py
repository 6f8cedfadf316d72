"""The tables of docs/guidance_rules.md have the figures that were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "guidance_rules.md").read_text("utf-8")


def measured(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Figures by their names and cases."""
    path = DOCS / "benchmarks" / f"{name}-torch.json"
    figures = json.loads(path.read_text("utf-8"))["figures"]
    return {(item["name"], item["case"]): item for item in figures}


def table(beginning: str) -> list[list[str]]:
    """Cells of the table whose head begins so, without the head."""
    lines = PAGE[PAGE.index(f"| {beginning} |") :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def shown(item: dict[str, Any], digits: int) -> str:
    median, lower, upper = (f"{item[key]:.{digits}f}" for key in ("median", "lower", "upper"))
    return f"{median} ({lower} to {upper})"


def test_what_rules_do_to_pictures() -> None:
    figures = measured("rule_quality")
    rows = table("rule | rows, %")
    names = [name for name, case in figures if case == "rows"]
    assert [row[0] for row in rows] == ["plain guidance", *names[1:]]
    for name, (_, computed, right, more) in zip(names, rows, strict=True):
        assert computed == f"{figures[name, 'rows']['median']:.1f}"
        assert right == shown(figures[name, "right"], 1)
        found = figures.get((name, "more than uncut"))
        assert more == ("" if found is None else shown(found, 1))
    assert f"{figures['uncut', 'right']['rounds']} prompts, each from the same noise" in PAGE


def test_what_rules_cost() -> None:
    figures = measured("rule_cost")
    rows = table("rule | 2 x 4 x 128 x 128")
    assert len(rows) == 5
    for name, small, small_ratio, large, large_ratio in rows:
        for size, ours, ratio in ((4, small, small_ratio), (16, large, large_ratio)):
            case = f"{name}, 2 x {size} x 128 x 128"
            assert ours == f"{figures['ours', case]['median']:.2f} ms"
            assert ratio == shown(figures["ours to theirs", case], 2)
