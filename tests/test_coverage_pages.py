"""The pages about coverage are what was measured, and all of it is found on them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "instruments"))

from zoo.entry import CASES  # noqa: E402
from zoo.family_report import family_of  # noqa: E402
from zoo.preview_report import makes  # noqa: E402
from zoo.report import pages  # noqa: E402

EVERY = sorted((DOCS / "coverage").glob("*.json"))
#: What came of loops that are seen instead of known has a page of its own.
SEEN = [file for file in EVERY if file.name.startswith("observed-")]
FILES = [file for file in EVERY if file not in SEEN and "modular-" not in file.name]
LIBRARIES = {"torch": "diffusers", "mindspore": "mindone"}


def rows_of(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["rows"]
    return rows


def family_page(row: dict[str, Any]) -> str:
    return (DOCS / "coverage" / f"{family_of(row)}.md").read_text("utf-8")


def lines(page: str, section: str, row: dict[str, Any]) -> dict[str, str]:
    """Cells of the row's class and variant in the table of a section, by column."""
    table = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    cells = [line[2:-2].split(" | ") for line in table.splitlines() if line.startswith("| ")]
    name = f"{row['class']}, {row['variant']}" if row["variant"] else row["class"]
    found = [dict(zip(cells[0], line, strict=True)) for line in cells if line[0] == name]
    assert len(found) == 1, name
    return found[0]


def parts_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What was said of the row: where two callbacks were measured, of each."""
    parts = [row[key] for key in ("interval", "schedule") if row.get(key)]
    return parts or [row]


def reason(part: dict[str, Any]) -> str:
    """Say in one line why a verdict is what it is, as the pages do."""
    if part["verdict"] == "failed":
        return " ".join(f"without unicb, too: {part['why']}".partition("\n\n---")[0].split())
    return " ".join(part["why"].split())


def test_pages_are_made_again_from_the_files_alone(tmp_path: Path) -> None:
    for file in EVERY:
        (tmp_path / "coverage").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "coverage")
    path = os.pathsep.join([*sys.path, str(ROOT / "instruments")])
    command = [sys.executable, "-P", "-m", "zoo", "report", "--docs", str(tmp_path)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True)
    written = [*tmp_path.rglob("*.md"), tmp_path / "pipelines.json"]
    made = {p.relative_to(tmp_path): p.read_text("utf-8") for p in written}
    names = ("coverage.md", "observed.md", "pipelines.md", "pipelines.json")
    committed = [*(DOCS / name for name in names), *(DOCS / "coverage").glob("*.md")]
    assert made == {p.relative_to(DOCS): p.read_text("utf-8") for p in committed}


def test_first_page_is_short_and_has_every_class() -> None:
    page = (DOCS / "coverage.md").read_text("utf-8")
    assert page.count("\n") <= 420
    for file in FILES:
        for row in rows_of(file):
            assert f"[{row['class']}][{family_of(row)}]" in page


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_class_and_variant_and_reason_is_on_its_page(file: Path) -> None:
    for row in rows_of(file):
        page = family_page(row)
        lines(page, "Verdicts", {**row, "variant": ""})
        if row["variant"]:
            assert f"{row['class']}, {row['variant']}" in page
        for part in parts_of(row):
            why = reason(part)
            # A reason that several classes share is there once, without their names.
            assert why in page or why.replace(row["class"], "this class") in page
        bound = "calls no callback at the end of a step" not in row["why"]
        if row["verdict"] == "refused" and "layout" in row and bound:
            assert f" ({makes(row['class'])})" in page


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_verdicts_lead_to_their_reasons(file: Path) -> None:
    measure, _, framework = file.stem.rpartition("-")
    columns = {"": ["cut"], "guidance": ["interval", "schedule"], "previews": ["preview"]}
    columns["rules"], columns["steps"] = ["rule"], ["steps"]
    seen = 0
    for row in rows_of(file):
        page = family_page(row)
        table = page.partition("\n## Verdicts\n")[2].partition("\n## ")[0]
        head, _, *rest = (x[2:-2].split(" | ") for x in table.splitlines() if x.startswith("|"))
        (cells,) = (line for line in rest if line[0] == row["class"])
        start = head.index(f"{LIBRARIES[framework]}: cut")
        for column in columns.get(measure, ["stop"]):
            found = row.get(column)
            part = found if isinstance(found, dict) else row
            if not part["why"] or part["verdict"] == "impossible":
                continue
            seen += 1
            cell = cells[start if column == "cut" else head.index(column, start)]
            assert cell.startswith(part["verdict"])
            notes = [
                line.partition(": ")[2].replace(row["class"], "this class")
                for line in page.splitlines()
                if line.startswith("[^") and line.partition(":")[0] in cell
            ]
            why = reason(part).replace(row["class"], "this class")
            assert any(note.startswith(why) for note in notes)
    assert seen > 0


@pytest.mark.parametrize("framework", LIBRARIES)
def test_figures_are_there(framework: str) -> None:
    library, folder = LIBRARIES[framework], DOCS / "coverage"
    pages_of: dict[str, str] = {}

    def cells(section: str, row: dict[str, Any]) -> dict[str, str]:
        page = pages_of.setdefault(family_of(row), family_page(row))
        return lines(page, f"{section} on {library}", row)

    def case(cell: str, row: dict[str, Any]) -> str:
        return cell.split(", ")[list(CASES).index(row["case"])]

    def shown(difference: float) -> str:
        return f"{difference:.0e}" if difference else "0"

    for row in rows_of(folder / f"{framework}.json"):
        if row["verdict"] == "exact":
            found = cells("Guidance", row)
            assert case(found["cut"], row) == shown(row["difference"])
            assert f"{row['saved']:.0%}" in found["saved"]
            assert found["guidance by"] == row["way"]
    for row in rows_of(folder / f"guidance-{framework}.json"):
        for key in ("interval", "schedule"):
            if row[key] and row[key]["verdict"] == "exact":
                found = cells("Guidance", row)
                assert found[key] == shown(row[key]["difference"])
                if row["saved"] is not None:  # as where the interval is refused
                    assert found["saved outside"] == f"{row['saved']:.0%}"
    for row in rows_of(folder / f"rules-{framework}.json"):
        if row["verdict"] == "exact":
            assert cells("Guidance", row)["rule"] == shown(row["difference"])
    for row in rows_of(folder / f"previews-{framework}.json"):
        if row["verdict"] == "right":
            found = cells("Previews and stops", row)
            assert 0 <= row["correlation"] - float(case(found["preview"], row)) < 1e-4
            sizes = found["frames x height x width"].split(" or ")
            assert row["size"].partition(" x ")[2] in sizes
            assert found["layout"] == f"`{row['layout']}`"
            assert found["colours"] == (row["format"] or "-")
            assert found["shows"] == row["source"]
        elif row["size"]:
            assert "callbacks get" in cells("Previews and stops", row)["frames x height x width"]
    for row in rows_of(folder / f"stops-{framework}.json"):
        if row["verdict"] != "impossible":
            found = cells("Previews and stops", row)
            assert found["loop"] == (row["way"] or "-")
            assert found["stop"].startswith(row["verdict"])


def made_of(folder: Path, *rows: dict[str, Any]) -> dict[str, str]:
    """The pages, where this is all that was measured."""
    measured = {"versions": {"torch": "2"}, "date": "2026-01-01", "rows": rows}
    (folder / "stops-torch.json").write_text(json.dumps(measured), encoding="utf-8")
    return pages(folder)


def stop(variant: str, verdict: str, why: str = "", kind: str = "FluxPipeline") -> dict[str, Any]:
    of = {"class": kind, "variant": variant, "family": "flux", "case": "one prompt"}
    return {**of, "verdict": verdict, "why": why, "way": "flag", "saved": 0.5}


def test_worst_variant_counts(tmp_path: Path) -> None:
    made = made_of(tmp_path, stop("", "exact"), stop("odd", "refused", "it is odd"))
    page = made["coverage/flux.md"]
    assert "| FluxPipeline |  |  |  |  |  | refused in 1 of 2[^1] |" in page
    assert "[^1]: it is odd" in page


def test_what_failed_is_said_to_have_failed_without_unicb(tmp_path: Path) -> None:
    mindspore = "TypeError: no such mean\n\n---------\n- C++ Call Stack\n"
    page = made_of(tmp_path, stop("", "failed", mindspore))["coverage/flux.md"]
    assert "[^1]: without unicb, too: TypeError: no such mean\n" in page


def test_entry_that_is_not_built_has_one_verdict(tmp_path: Path) -> None:
    """It has a row for each case, each with the same verdict."""
    rows = [{**stop("", "not built", "no weights"), "case": case} for case in CASES]
    page = made_of(tmp_path, *rows)["coverage/flux.md"]
    assert "| FluxPipeline |  |  |  |  |  | not built[^1] |" in page
    assert "| flag | not built[^1] |" in page


def test_reason_of_several_classes_is_there_once(tmp_path: Path) -> None:
    one = stop("", "refused", "FluxPipeline cannot stop")
    two = stop("", "refused", "FluxFillPipeline cannot stop", "FluxFillPipeline")
    page = made_of(tmp_path, one, two)["coverage/flux.md"]
    assert page.count("cannot stop") == 1
    assert "[^1]: this class cannot stop" in page
    assert "[^1]: FluxPipeline cannot stop" in made_of(tmp_path, one)["coverage/flux.md"]


def test_what_was_not_measured_is_not_told(tmp_path: Path) -> None:
    made = made_of(tmp_path, stop("", "exact"))
    assert set(made) == {"coverage.md", "coverage/flux.md", "pipelines.md", "pipelines.json"}
    assert "## Stops" in made["coverage.md"]
    assert "## Previews" not in made["coverage.md"]
    assert "mindone has none of these classes." in made["coverage/flux.md"]


def test_what_is_seen_of_loops_is_never_wrong() -> None:
    least = {"observed-torch.json": 290, "observed-mindspore.json": 100}
    assert {file.name for file in SEEN} == {*least}
    page = (DOCS / "observed.md").read_text("utf-8")
    for file in SEEN:
        guided = [row for row in rows_of(file) if row["way"] not in ("", "none")]
        found = [r for row in guided for r in (row, row["first"]) if r is not None]
        verdicts = {row["verdict"] for row in found}
        assert verdicts <= {"exact", "refused", "impossible", "not built"}, file.name
        assert sum(row["verdict"] == "exact" for row in guided) >= least[file.name]
        for row in guided:
            if "refused" in (row["verdict"], (row["first"] or {}).get("verdict")):
                assert f"| `{row['class']}` | {row['variant']} |" in page


def test_lookup_has_every_class_of_each_library_with_its_verdicts() -> None:
    rows = json.loads((DOCS / "pipelines.json").read_text("utf-8"))
    listed = {(row["class"], row["framework"]): row for row in rows}
    assert len(listed) == len(rows)
    page = (DOCS / "pipelines.md").read_text("utf-8")
    seen = 0
    for file in FILES:
        measure, _, framework = file.stem.rpartition("-")
        name = {"": "cut", "rules": "rule", "previews": "preview", "stops": "stop"}.get(measure)
        for found in rows_of(file):
            row = listed[found["class"], framework]
            assert f"| `{row['class']}` | {row['library']} |" in page
            if name is None or found["verdict"] == "impossible":
                continue
            worst = row[name]
            if found["verdict"] not in ("exact", "right"):
                # Nobody is told that something works which does not on a variant.
                assert worst["verdict"] not in ("exact", "right"), row
            if worst["verdict"] == found["verdict"]:
                seen += 1
                assert reason(found) in worst["why"]
                assert (found.get("difference") or 0) <= (row["exactness"] or 0) or name != "cut"
    assert seen > 1000


def test_lookup_has_modular_pipelines() -> None:
    rows = json.loads((DOCS / "pipelines.json").read_text("utf-8"))
    modular = [row for row in rows if row["family"] == "modular"]
    named = {row["class"] for row in modular if row["framework"] == "torch"}
    file = DOCS / "coverage" / "modular-torch.json"
    titles = json.loads(file.read_text("utf-8"))["classes"]
    assert named == {title.partition(" ")[0] for title in titles}
    (ltx,) = (row for row in modular if row["class"] == "LTX2ModularPipeline")
    assert ltx["cut"]["verdict"] == "exact"
    assert "more predictions than the two" in ltx["rule"]["why"]
