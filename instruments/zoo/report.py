"""The page about coverage, from what was measured on each framework."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo import guidance_report, preview_report, stop_report
from zoo.entry import CASES
from zoo.framework import FRAMEWORKS
from zoo.verdicts import verdicts

LIBRARIES = {"torch": "diffusers", "mindspore": "mindone"}
WAYS = {
    "batch": "one call with a batch of several blocks of rows",
    "switch": "several calls, by a property that is read at each step",
    "calls": "several calls, by a local flag",
}
TITLE = "# Coverage: what works on which pipelines, and how exactly\n"
INTRODUCTION = """\
Made by `nox -s coverage-cfg`; not written by hand. Each class was built as a tiny pipeline with
random weights, on a CPU in float32, and run with one prompt, with two, and with two images for each
prompt, three times from the same noise: with full guidance; as the reference, in which both
halves are computed to the end and the unconditional one is overwritten with the conditional one
after the cut; and with `CFGCutoff`.

- **exact**: the largest difference between the reference and the cut run, in standard deviations
  of the latents, is below 1e-5; the work of the unconditional part was saved; a plain run
  afterwards gives the same bits as one before (on MindSpore, to within 1e-5); the part that was
  kept is what the pipeline itself computes with guidance off; and in a run of one prompt with
  guidance off, `CFGCutoff` changes no bit. (For a few entries, guidance off is something else by
  design: `off_differs` in the zoo says why.)
- **refused**: `bind`, or an error in the first step after the cut, says why.
- **n/a**: the pipeline cannot do this case by itself, with unicb or without.

*Saved* is the share of the rows of all models in the loop that steps after the cut leave out. It
is less than a half where something else is computed beside guidance: of three blocks with perturbed
attention one goes; a ControlNet that is called once a step stays.
"""


def write(folder: Path, page: Path) -> None:
    """Write the page from ``<framework>.json``, ``guidance-<framework>.json``,
    ``previews-<framework>.json`` and ``stops-<framework>.json`` in the folder, for those that are
    there."""
    cut, guidance = _read(folder, ""), _read(folder, "guidance-")
    previews, stops = _read(folder, "previews-"), _read(folder, "stops-")
    parts = [TITLE, "## Guidance that is cut\n", *_totals(cut), INTRODUCTION]
    if guidance:
        parts += ["## Guidance in an interval, and of a scale that changes\n"]
        parts += [*guidance_report.totals(guidance, LIBRARIES), guidance_report.INTRODUCTION]
    if previews:
        parts += ["## Previews\n", *preview_report.totals(previews, LIBRARIES)]
        parts += [preview_report.INTRODUCTION]
    if stops:
        parts += ["## Stops\n", *stop_report.totals(stops, LIBRARIES), stop_report.INTRODUCTION]
    for name, library in LIBRARIES.items():
        if name in cut:
            parts += [f"## Guidance on {library}\n", *_framework(cut[name])]
        if name in guidance:
            parts += [f"## Intervals and scales of guidance on {library}\n"]
            parts += [*guidance_report.framework(guidance[name])]
        if name in previews:
            parts += [f"## Previews on {library}\n", *preview_report.framework(previews[name])]
        if name in stops:
            parts += [f"## Stops on {library}\n", *stop_report.framework(stops[name])]
    page.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def _read(folder: Path, prefix: str) -> dict[str, Any]:
    return {
        name: json.loads((folder / f"{prefix}{name}.json").read_text(encoding="utf-8"))
        for name in FRAMEWORKS
        if (folder / f"{prefix}{name}.json").is_file()
    }


def _totals(found: dict[str, Any]) -> Iterator[str]:
    columns = ["exact", "refused", "wrong", "failed", "not built", "no guidance"]
    yield "| classes that call a step-end callback | " + " | ".join((*columns, "in all")) + " |"
    yield "|---|" + "---:|" * (len(columns) + 1)
    for measured in found.values():
        verdict = verdicts(measured["rows"])
        counts = [sum(v == column for v in verdict.values()) for column in columns]
        versions = ", ".join(f"{key} {value}" for key, value in measured["versions"].items())
        numbers = " | ".join(str(n) for n in (*counts, sum(counts)))
        yield f"| {versions} ({measured['date']}) | {numbers} |"
    yield ""
    for name, measured in found.items():
        exact = [row for row in measured["rows"] if row["verdict"] == "exact"]
        if exact:
            worst = max(row["difference"] for row in exact)
            yield (
                f"{LIBRARIES[name]}: {len(exact)} runs exact, of "
                f"{len({(row['class'], row['variant']) for row in exact})} pipelines in "
                f"{len({row['class'] for row in exact})} classes; the largest difference is "
                f"{worst:.1e}."
            )
            yield ""


def _framework(measured: dict[str, Any]) -> Iterator[str]:
    rows = measured["rows"]
    for way, meaning in WAYS.items():
        chosen = [row for row in rows if row["way"] == way and row["case"]]
        if chosen:
            yield f"### {meaning[0].upper()}{meaning[1:]}"
            yield ""
            yield "| class | " + " | ".join(CASES) + " | saved |"
            yield "|---|" + "---|" * len(CASES) + "---:|"
            yield from _lines(chosen)
            yield ""
    reasons = sorted(
        {
            (row["class"], row["verdict"], " ".join(row["why"].split()))
            for row in rows
            if row["verdict"] not in ("exact", "impossible")
        }
    )
    for verdict, title in (
        ("wrong", "Wrong"),
        ("failed", "The pipeline itself failed"),
        ("refused", "Refused, and why"),
        ("not built", "Not built, and why"),
        ("no guidance", "Without classifier-free guidance: refused at `bind`"),
    ):
        told = [(kind, why) for kind, v, why in reasons if v == verdict]
        if told:
            yield f"### {title}"
            yield ""
            yield from (f"- {kind}: {why}" for kind, why in told)
            yield ""


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    titles = dict.fromkeys((row["class"], row["variant"]) for row in rows)
    for title in sorted(titles):
        cells = {row["case"]: row for row in rows if (row["class"], row["variant"]) == title}
        saved = {f"{row['saved']:.0%}" for row in cells.values() if row["saved"] is not None}
        name = f"{title[0]}, {title[1]}" if title[1] else title[0]
        shown = " | ".join(_cell(cells.get(case)) for case in CASES)
        yield f"| {name} | {shown} | {' to '.join(sorted(saved))} |"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["verdict"] == "impossible":
        return "n/a"
    if row["verdict"] == "exact":
        return f"exact ({row['difference']:.0e})" if row["difference"] else "exact (0)"
    return str(row["verdict"])
