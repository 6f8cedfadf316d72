"""Says of each class in one line what works on it, how exactly, and why not: in a file for
machines, and on the page that is searched for "Does it work on my pipeline?"."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from zoo.family_report import WITHOUT, about, families, family_of
from zoo.framework import FRAMEWORKS
from zoo.measures import (
    CUT,
    INTERVAL,
    LIBRARIES,
    PREVIEW,
    RULE,
    SCHEDULE,
    STOP,
    Found,
    Rows,
    source_of_row,
    title,
)
from zoo.modular.report import worst
from zoo.verdicts import verdicts

#: In the folder of documents.
FILE, PAGE = "pipelines.json", "pipelines.md"
MODULAR = "modular"
#: What was measured, by the columns' names; the callbacks are CFGCutoff and so on.
COLUMNS = {
    **{"cut": CUT, "interval": INTERVAL, "scale": SCHEDULE, "rule": RULE},
    **{"preview": PREVIEW, "stop": STOP},
}
#: Where a reason's facts were read, which the family's page says, too.
_FACTS = re.compile(r"\.? Facts from: [^;]*")
#: A cell of what was not run.
NOT_RUN = "\N{EN DASH}"
_RIGHT = ("exact", "right")
INTRODUCTION = """\
# Does it work on my pipeline?

Type a part of your pipeline's class, such as `StableDiffusionXL` or `flux img2img`; Enter shows
the verdict. Without JavaScript, and below, the same stands in a table for each family.

<div id="unicb-lookup"></div>

Each class was built small, of random weights, and run with unicb and without, on diffusers and on
mindone, on a CPU (`nox -s coverage-cfg`, `coverage-guidance`, `coverage-previews`,
`coverage-stops`, `coverage-steps`, `coverage-modular`). [What works](coverage.md) says
what was asked of each, with every figure.

- **cut** is `CFGCutoff`, **interval** `GuidanceInterval`, **scale** `GuidanceSchedule`, **rule**
  `GuidanceRule`, **preview** `Preview`, **stop** `Interrupt`.
- **exact**: what comes out equals a run that computes everything and leaves it unused, up to the
  rounding of float32; **to** is the largest difference of the cut, in standard deviations of the
  latents.
- **right**: the preview shows the picture that comes of it.
- **otherwise**: it works, and does something else than on most pipelines; the reason says what.
- **refused**: `bind` raises an error with the reason, before anything runs.
- **no guidance**: there is no classifier-free guidance to act on; everything else works.
- **steps by**: what tells the end of a step: the pipeline's callback, its scheduler
  ([how](without_callback.md)), or its loop's blocks ([modular pipelines](modular.md)).
- A verdict is the worst of a class's variants; *in 1 of 2* counts them. A dash: not run.
- **reasons** are numbers of the list below each table.

A class that is not here (of your own, of the community, of a newer release) is served where its
code, or its first step, shows what it does, and refused otherwise: `bind(pipe, ...)` says which,
before the run.
The same data for machines: [pipelines.json](pipelines.json).

## The classes of each family
"""


def lookup(found: Found, folder: Path) -> list[dict[str, Any]]:
    """Return a row for each class and framework; ``folder`` has the files on modular pipelines."""
    rows = [
        _row(family, framework, kind, of)
        for family in families(found)
        for framework in FRAMEWORKS
        for kind, of in _classes(found, family, framework)
    ]
    modular = [row for framework in FRAMEWORKS for row in _modular(folder, framework)]
    return sorted(
        [*rows, *modular],
        key=lambda row: (row["family"] == WITHOUT, row["family"], row["class"].lower()),
    )


def _classes(found: Found, family: str, framework: str) -> Iterator[tuple[str, dict[str, Rows]]]:
    """Yield each class of the family, with its rows of every measure."""
    of = {
        name: [row for row in measure.rows(found, framework) if family_of(row) == family]
        for name, measure in COLUMNS.items()
    }
    for kind in sorted({row["class"] for rows in of.values() for row in rows}):
        yield kind, {n: [r for r in rows if r["class"] == kind] for n, rows in of.items()}


def _row(family: str, framework: str, kind: str, of: dict[str, Rows]) -> dict[str, Any]:
    every = [row for rows in of.values() for row in rows]
    exactness = [row["difference"] for row in of["cut"] if row.get("difference") is not None]
    return {
        "class": kind,
        "family": family,
        "library": LIBRARIES[framework],
        "framework": framework,
        "steps_by": source_of_row(every[0]),
        **{name: _verdict(rows) for name, rows in of.items()},
        "exactness": max(exactness, default=None),
    }


def _verdict(rows: Rows) -> dict[str, str] | None:
    """Return the worst of the class's variants, in how many, and why; None where it was not run."""
    ran = [row for row in rows if row["verdict"] != "impossible"]
    if not ran:
        return None
    (verdict,) = verdicts(ran).values()
    so = [row for row in ran if row["verdict"] == verdict]
    variants, every = {title(row) for row in so}, {title(row) for row in ran}
    share = f"{len(variants)} of {len(every)}" if variants != every else ""
    whys = dict.fromkeys(row["why"] for row in so if row["why"])
    return {"verdict": verdict, "in": share, "why": "; ".join(whys)}


def _modular(folder: Path, framework: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each modular pipeline; its titles are a class and a variant."""
    file = folder / f"modular-{framework}.json"
    if not file.is_file():
        return
    measured = json.loads(file.read_text(encoding="utf-8"))["classes"]
    for kind, titles in groupby(sorted(measured), lambda name: name.partition(" ")[0]):
        runs = [run for name in titles for run in measured[name].values()]
        columns = {name: "schedule" if name == "scale" else name for name in COLUMNS}
        yield {
            "class": kind,
            "family": MODULAR,
            "library": LIBRARIES[framework],
            "framework": framework,
            "steps_by": "blocks",
            **{name: _modular_verdict(runs, what) for name, what in columns.items()},
            "exactness": None,
        }


def _modular_verdict(runs: Iterable[dict[str, Any]], what: str) -> dict[str, str] | None:
    runs = [run for run in runs if what in run["verdicts"]]
    if not runs:
        return None
    verdict = worst(run["verdicts"][what] for run in runs)
    whys = (run["why"].get(what, "") for run in runs if run["verdicts"][what] == verdict)
    why = "; ".join(dict.fromkeys(" ".join(why.split()) for why in whys if why))
    return {"verdict": verdict, "in": "", "why": why}


def page(rows: list[dict[str, Any]]) -> str:
    """Return the page: a table for each family."""
    parts = [INTRODUCTION]
    for family, of in groupby(rows, lambda row: row["family"]):
        says = "Pipelines of blocks." if family == MODULAR else about(family)
        parts += [f"### {family}\n", f"{says} [Every figure](coverage/{family}.md).\n"]
        parts += [*_table(list(of)), ""]
    return "\n".join(parts).rstrip() + "\n"


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table, and those of a list of its reasons: sentences would make its rows
    tall, beside what a reader looks for."""
    yield f"| class | library | steps by | {' | '.join(COLUMNS)} | to | reasons |"
    yield "|---|---|---|" + "---|" * (len(COLUMNS) + 2)
    numbers: dict[str, int] = {}
    for row in rows:
        cells = [f"`{row['class']}`", row["library"], row["steps_by"].partition(",")[0]]
        cells += [_cell(row[name]) for name in COLUMNS]
        those = [str(numbers.setdefault(said, len(numbers) + 1)) for said in _reasons(row)]
        cells += [_exactness(row["exactness"]), ", ".join(those)]
        yield f"| {' | '.join(cells)} |"
    if numbers:
        yield "\nReasons:\n"
        yield from (f"{number}. {said}" for said, number in numbers.items())


def _cell(found: dict[str, str] | None) -> str:
    if found is None:
        return NOT_RUN
    return f"{found['verdict']} in {found['in']}" if found["in"] else found["verdict"]


def _exactness(difference: float | None) -> str:
    if difference is None:
        return NOT_RUN
    return f"{difference:.0e}" if difference else "0"


def _reasons(row: dict[str, Any]) -> list[str]:
    """Return each reason once, after what it is the reason of."""
    of: dict[str, list[str]] = {}
    for name in COLUMNS:
        found = row[name]
        if found and found["why"] and found["verdict"] not in _RIGHT:
            why = _FACTS.sub("", found["why"]).replace(row["class"], "this class")
            of.setdefault(why, []).append(name)
    return [f"**{', '.join(names)}**: {why}" for why, names in of.items()]


def files(found: Found, folder: Path) -> dict[str, str]:
    """Return the texts of the page and of the file for machines, by their names."""
    rows = lookup(found, folder)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return {PAGE: page(rows), FILE: f"[\n{lines}\n]\n"}
