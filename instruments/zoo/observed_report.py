"""The page about loops that are seen to guide, from what was measured on each framework."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from zoo.framework import FRAMEWORKS
from zoo.measures import LIBRARIES

VERDICTS = ("exact", "refused", "wrong", "failed", "not built")
INTRODUCTION = """\
# How a loop guides is seen in what it does

Made by `nox -s coverage-observed`; not written by hand. What it is for, and how it works, is in
[design.md](design.md#a-class-is-known-by-its-loop).

Every loop with guidance was run as if unicb had never seen it: each class and variant of
[coverage.md](coverage.md), with the largest request that it can do. *Cut*: `CFGCutoff` after the
second step. *Off at first*: `GuidanceInterval(0.5, 1.0)`, with which the first step, computed whole
to be looked at, is replaced by what the loop would have made of it. The latents at the end were
compared with those of the same run by the facts:

- **exact**: the same, to 1e-5 of their standard deviation; of *off at first*, whose first step is
  computed on other numbers of rows, to 1e-4, or to 1e-4 of what that changes in the plain run.
- **refused**: the run ended with an error before anything was cut: its loop does not show how it
  guides, or more than that would have to be known.
- **wrong**: other latents.
- **failed**: the run fails by the facts, too. **not built**: no tiny pipeline was run.

Loops whose guidance is switched off by an attribute of the pipeline have nothing to be seen of: it
is counted whether their calls get fewer. They are counted by themselves.
"""


def write(docs: Path) -> None:
    """Write ``observed.md`` in the folder, from those of ``coverage/observed-*.json`` that are
    there."""
    (docs / "observed.md").write_text(page(docs / "coverage"), encoding="utf-8")


def page(folder: Path) -> str:
    """Return the text of the page; ``folder`` has the files."""
    paths = {name: folder / f"observed-{name}.json" for name in FRAMEWORKS}
    found = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
        if path.is_file()
    }
    lines = [INTRODUCTION, "## Totals", "", _line("framework", "loops", "asked", *VERDICTS)]
    lines.append("| --- | --- | --- |" + " ---: |" * len(VERDICTS))
    for name, measured in found.items():
        lines += _totals(name, _guided(measured["rows"]))
    lines.append("")
    for name, measured in found.items():
        versions = ", ".join(f"{key} {value}" for key, value in measured["versions"].items())
        lines += [
            f"## What is not exact on {LIBRARIES[name]}",
            "",
            f"{versions}; {measured['date']}",
        ]
        lines += ["", *_rest(_guided(measured["rows"])), ""]
    return "\n".join(lines).rstrip() + "\n"


def _guided(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of loops with guidance that was asked for."""
    return [r for r in rows if r["way"] not in ("", "none") and r["verdict"] != "impossible"]


def _totals(name: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    groups = {
        "seen to guide": [row for row in rows if row["way"] != "switch"],
        "switched": [row for row in rows if row["way"] == "switch"],
    }
    for loops, chosen in groups.items():
        yield _counted(name, loops, "cut", [row["verdict"] for row in chosen])
        first = [row["first"]["verdict"] for row in chosen if row["first"]]
        yield _counted(name, loops, "off at first", first)


def _counted(name: str, loops: str, asked: str, verdicts: list[str]) -> str:
    counts = Counter(verdicts)
    return _line(name, loops, asked, *(str(counts[verdict]) for verdict in VERDICTS))


def _rest(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield _line("class", "variant", "cut", "off at first", "why")
    yield "| --- | --- | --- | --- | --- |"
    for row in sorted(rows, key=lambda row: (row["class"], row["variant"])):
        first = row["first"] or {"verdict": "", "why": ""}
        if {row["verdict"], first["verdict"]} <= {"exact", ""}:
            continue
        why = " ".join((row["why"] or first["why"]).split()).replace("|", "\\|")
        why = why.partition("; the pipeline has been put back")[0]
        yield _line(f"`{row['class']}`", row["variant"], row["verdict"], first["verdict"], why)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
