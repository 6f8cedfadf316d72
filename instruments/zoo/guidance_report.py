"""What the page about coverage says of intervals of guidance and of scales that change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo.verdicts import verdicts

COLUMNS = ["exact", "refused", "wrong", "failed", "not built", "no guidance"]
CALLBACKS = {"interval": "GuidanceInterval", "schedule": "GuidanceSchedule"}
INTRODUCTION = """\
Made by `nox -s coverage-guidance`; not written by hand. The same tiny pipelines were run from the
same noise with `GuidanceInterval` and with `GuidanceSchedule`, each held against runs without
unicb.

- **exact**, `GuidanceInterval`: the first step was without guidance, and so was the last of three
  or more. The largest difference from a run in which both halves are computed in every step, and
  the unconditional one is overwritten with the conditional one in those, is below 1e-5 of the
  latents' standard deviation; their unconditional work was saved, and the models got all of their
  rows in the other steps; and `GuidanceInterval(0, 0.4)` gives the bits of `CFGCutoff(0.4)` (on
  MindSpore, to within 1e-5).
- **exact**, `GuidanceSchedule`: three schedules are as near to their references. One scale for all
  steps: a plain call with that scale. A scale that rises from step to step: a plain call into whose
  loop (into the attribute, or into the local of its frame, where it has its scale) each was put
  from a plain callback. A scale that falls to where the class's guidance is off: a plain call with
  the first scale, with the unconditional half overwritten from that step on.
- **refused**: `bind`, or an error in the first step, says why.

A few pipelines multiply roundings in later steps, by a scale of 500 or by choosing tokens of which
to take notice. There, a difference above 1e-5 is exact if the reference differs by more from itself
once all predictions are changed by four millionths. In both, a plain run afterwards gives the same
bits as one before (on MindSpore, to within 1e-5). Every entry was run with one case, the largest;
on MindSpore, variants of a class were left out.
"""


def totals(found: dict[str, Any], libraries: dict[str, str]) -> Iterator[str]:
    """The headline, and the table of verdicts."""
    for name, measured in found.items():
        works = []
        for key, callback in CALLBACKS.items():
            exact = [row[key] for row in measured["rows"] if _of(row, key) == "exact"]
            classes = _verdicts(measured, key)
            worst = max((part["difference"] for part in exact), default=0.0)
            right = sum(v == "exact" for v in classes.values())
            guided = sum(v != "no guidance" for v in classes.values())
            works.append(f"`{callback}` on {right} of {guided} classes (within {worst:.1e})")
        yield f"{libraries[name]}: {', '.join(works)}, in all variants that were run."
        yield ""
    yield "| classes that call a step-end callback | | " + " | ".join((*COLUMNS, "in all")) + " |"
    yield "|---|---|" + "---:|" * (len(COLUMNS) + 1)
    for measured in found.values():
        versions = ", ".join(f"{key} {value}" for key, value in measured["versions"].items())
        for key, callback in CALLBACKS.items():
            verdict = _verdicts(measured, key)
            counts = [sum(v == column for v in verdict.values()) for column in COLUMNS]
            numbers = " | ".join(str(n) for n in (*counts, sum(counts)))
            yield f"| {versions} ({measured['date']}) | {callback} | {numbers} |"
    yield ""


def framework(measured: dict[str, Any]) -> Iterator[str]:
    """The table of one framework's classes, and what is not exact, and why."""
    rows = [row for row in measured["rows"] if row["verdict"] not in ("impossible", "no guidance")]
    yield "| class | way | interval | schedule | saved outside |"
    yield "|---|---|---|---|---:|"
    for title in sorted(dict.fromkeys(map(_title, rows))):
        row = next(row for row in rows if _title(row) == title)
        saved = "" if row["saved"] is None else f"{row['saved']:.0%}"
        cells = [row["way"] or "-", *(_cell(row, key) for key in CALLBACKS), saved]
        yield f"| {title} | {' | '.join(cells)} |"
    yield ""
    for key, callback in CALLBACKS.items():
        for verdict in COLUMNS[1:-1]:
            told = {_title(row): _why(row, key) for row in rows if _of(row, key) == verdict}
            if told:
                yield f"### {callback}: {verdict}, and why"
                yield ""
                yield from (f"- {title}: {why}" for title, why in sorted(told.items()))
                yield ""


def _of(row: dict[str, Any], key: str) -> str:
    """The verdict on one of the callbacks; the row's where it was run with neither."""
    return str(row["verdict"] if row[key] is None else row[key]["verdict"])


def _verdicts(measured: dict[str, Any], key: str) -> dict[str, str]:
    parts = [{"class": row["class"], "verdict": _of(row, key)} for row in measured["rows"]]
    return verdicts(parts, (*COLUMNS, "impossible"))


def _why(row: dict[str, Any], key: str) -> str:
    return " ".join(str(row["why"] if row[key] is None else row[key]["why"]).split())


def _cell(row: dict[str, Any], key: str) -> str:
    verdict = _of(row, key)
    if verdict != "exact":
        return verdict
    difference = row[key]["difference"]
    return f"exact ({difference:.0e})" if difference else "exact (0)"


def _title(row: dict[str, Any]) -> str:
    return f"{row['class']}, {row['variant']}" if row["variant"] else str(row["class"])
