"""The page about coverage of one family: its classes, their verdicts and figures."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from zoo.entry import CASES
from zoo.families import entries, family_names
from zoo.measures import (
    CUT,
    INTERVAL,
    LIBRARIES,
    MEASURES,
    PREVIEW,
    RULE,
    SCHEDULE,
    STEPS,
    STOP,
    Found,
    Measure,
    Rows,
    by_title,
    title,
)
from zoo.preview_report import floor
from zoo.verdicts import WORST_FIRST, verdicts

#: The page of classes that belong to no family, for no entry builds them.
WITHOUT = "without_entry"
#: What figures need no reason for.
RIGHT = ("exact", "right")
LEGEND = """\
Made by `nox -s coverage-report` from the [files beside it](../coverage.md#the-files); not written
by hand. What was bound, with links to what its verdicts and figures mean:
[cut](../coverage.md#guidance-that-is-cut) `CFGCutoff`;
[interval and schedule](../coverage.md#guidance-in-an-interval-and-of-a-scale-that-changes)
`GuidanceInterval` and `GuidanceSchedule`, and rule `GuidanceRule`;
[preview](../coverage.md#previews) `Preview`; [stop](../coverage.md#stops) `Interrupt`;
[steps](../without_callback.md#what-was-measured), of classes that call no callback, one that looks
and one that edits.

A class's verdict is the worst of its variants; *refused in 1 of 2* counts variants. The numbers
behind verdicts lead to the reasons, at the end, where "this class" stands for the name of each
class whose verdict leads there. An empty cell: not run, or the library has no such class.
"""
CASES_LINE = (
    "{{figure}} for each case: {cases}. A single verdict holds for every case that can be done."
).format(cases=", ".join(CASES))
GUIDANCE_COLUMNS = (
    *("pipeline", "guidance by", "cut", "saved", "interval", "schedule", "saved outside", "rule"),
)
OTHER_COLUMNS = (
    *("pipeline", "preview", "frames x height x width", "layout", "colours", "shows"),
    *("loop", "stop"),
)


class Reasons:
    """Footnotes: each reason once, with the numbers in the order in which they are first needed."""

    def __init__(self) -> None:
        # Reasons without the name of the class, and with it.
        self._found: dict[str, set[str]] = {}

    def mark(self, rows: Iterable[dict[str, Any]]) -> str:
        """Return the marks that lead to the reasons of these rows."""
        numbers = [self._number(row["class"], row["why"]) for row in rows if row["why"]]
        return "".join(f"[^{number}]" for number in dict.fromkeys(numbers))

    def _number(self, kind: str, why: str) -> int:
        general = why.replace(kind, "this class")
        self._found.setdefault(general, set()).add(why)
        return list(self._found).index(general) + 1

    def lines(self) -> Iterator[str]:
        for number, (general, whys) in enumerate(self._found.items(), 1):
            # Of one class alone it is as the error says it, for those who look for the words.
            yield f"[^{number}]: {general if len(whys) > 1 else next(iter(whys))}"


def about(family: str) -> str:
    """Say what a family is, in a sentence: its module's."""
    if family == WITHOUT:
        return "Classes that no entry of the zoo builds."
    module = importlib.import_module(f"zoo.families.{family}")
    return (module.__doc__ or "").partition("\n")[0]


def family_of(row: dict[str, Any]) -> str:
    """Return the family whose page has the row: of a class that is built on one framework only, the
    one that it has there."""
    return row["family"] or _families_of_entries().get(row["class"], WITHOUT)


@functools.cache
def _families_of_entries() -> dict[str, str]:
    return {entry.name: family for family in family_names() for entry in entries(family)}


def families(found: Found) -> list[str]:
    """Return the names of the families with classes, as their modules are ordered."""
    rows = [row for measure in MEASURES for name in found for row in measure.rows(found, name)]
    there = {family_of(row) for row in rows}
    return [name for name in (*family_names(), WITHOUT) if name in there]


def page(family: str, found: Found) -> str:
    """Return the family's page in Markdown."""

    def rows(measure: Measure, framework: str) -> Rows:
        return [row for row in measure.rows(found, framework) if family_of(row) == family]

    all_rows = {
        name: {measure.name: rows(measure, name) for measure in MEASURES} for name in LIBRARIES
    }
    with_rows = {name: of for name, of in all_rows.items() if any(of.values())}
    reasons = Reasons()
    parts = [f"# Coverage: {family}", "", about(family), "", LEGEND, "## Verdicts", ""]
    parts += [*_verdicts(with_rows, reasons), ""]
    for name, library in LIBRARIES.items():
        if name not in with_rows:
            parts += [f"{library} has none of these classes.", ""]
    for name, of in with_rows.items():
        lines = list(_guidance(of, reasons))
        if lines:
            parts += [f"## Guidance on {LIBRARIES[name]}", ""]
            parts += [CASES_LINE.format(figure="*Cut*: the difference"), ""]
            parts += [*_table(GUIDANCE_COLUMNS, lines), ""]
        lines = list(_previews_and_stops(of, reasons))
        if lines:
            parts += [f"## Previews and stops on {LIBRARIES[name]}", ""]
            parts += [CASES_LINE.format(figure="*Preview*: the correlation"), ""]
            parts += [*_table(OTHER_COLUMNS, lines), ""]
    parts += _impossible(with_rows)
    parts += ["## Reasons", "", *reasons.lines()] if list(reasons.lines()) else []
    return "\n".join(parts).rstrip() + "\n"


def _table(columns: Iterable[str], lines: Iterable[Iterable[str]]) -> Iterator[str]:
    columns = list(columns)
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    yield from (f"| {' | '.join(line)} |" for line in lines)


def _verdicts(of: dict[str, dict[str, Rows]], reasons: Reasons) -> Iterator[str]:
    """Yield a line for each class, with its verdicts on every framework."""
    there = [m for m in MEASURES if m is not STEPS or any(found[m.name] for found in of.values())]
    columns = ["class"]
    for name in of:
        columns += [f"{LIBRARIES[name]}: {there[0].name}"]
        columns += [measure.name for measure in there[1:]]
    names = {row["class"] for found in of.values() for rows in found.values() for row in rows}
    kinds = sorted(names, key=str.lower)
    lines = []
    for kind in kinds:
        line = [kind]
        for found in of.values():
            chosen = [[r for r in found[m.name] if r["class"] == kind] for m in there]
            line += [_verdict(rows, reasons) for rows in chosen]
        lines.append(line)
    yield from _table(columns, lines)


def _verdict(rows: Rows, reasons: Reasons) -> str:
    ran = [row for row in rows if row["verdict"] != "impossible"]
    if not ran:
        return "n/a" if rows else ""
    (worst,) = verdicts(ran).values()
    so = [row for row in ran if row["verdict"] == worst]
    variants, every = {title(row) for row in so}, {title(row) for row in ran}
    share = f" in {len(variants)} of {len(every)}" if variants != every else ""
    return f"{worst}{share}{reasons.mark(so)}"


def _guidance(of: dict[str, Rows], reasons: Reasons) -> Iterator[list[str]]:
    """Yield a line for each pipeline that has guidance."""
    names = [measure.name for measure in (CUT, INTERVAL, SCHEDULE, RULE)]
    found = {name: by_title(of[name]) for name in names}
    for pipeline in _titles(found.values()):
        cut, interval, schedule, rule = (found[name].get(pipeline, []) for name in names)
        rows = [*cut, *interval, *schedule, *rule]
        way = rows[0]["way"]
        if way == "none" and {row["verdict"] for row in rows} <= {"no guidance", "impossible"}:
            continue
        yield [
            pipeline,
            way or "-",
            _figures(cut, reasons),
            " to ".join(sorted({_share(row) for row in cut if row["saved"] is not None})),
            _figure(interval, reasons),
            _figure(schedule, reasons),
            " to ".join(sorted({_share(row) for row in interval if row["saved"] is not None})),
            _figure(rule, reasons),
        ]


def _previews_and_stops(of: dict[str, Rows], reasons: Reasons) -> Iterator[list[str]]:
    found = {measure.name: by_title(of[measure.name]) for measure in (PREVIEW, STOP)}
    for pipeline in _titles(found.values()):
        previews, stops = (found[name].get(pipeline, []) for name in found)
        size, about_latents = "", ["", "", ""]
        if previews:
            sized = [row for row in previews if row["size"]] or previews[-1:]
            size = " or ".join(dict.fromkeys(row["size"].partition(" x ")[2] for row in sized))
            if size and sized[0]["verdict"] == "refused":
                size = f"callbacks get {sized[-1]['size']}"
            if layout := sized[0]["layout"]:
                colours, shows = sized[0]["format"], sized[0]["source"]
                about_latents = [f"`{layout}`", colours or "-", shows or "-"]
        ran = [row for row in stops if row["verdict"] != "impossible"]
        loop = next((row["way"] or "-" for row in ran), "")
        preview, stop = _figures(previews, reasons), _figure(stops, reasons)
        yield [pipeline, preview, size, *about_latents, loop, stop]


def _titles(found: Iterable[dict[str, Rows]]) -> list[str]:
    return list(by_title(row for of in found for rows in of.values() for row in rows))


def _share(row: dict[str, Any]) -> str:
    return f"{row['saved']:.0%}"


def _figures(rows: Rows, reasons: Reasons) -> str:
    """Return a figure for each case; one verdict where it is the same of all that can be done."""
    ran = [row for row in rows if row["verdict"] != "impossible"]
    if ran and len({(row["verdict"], row["why"]) for row in ran}) == 1 and ran[0]["why"]:
        return _figure(ran[:1], reasons)
    if not rows:
        return ""
    of = {row["case"]: [row] for row in rows}
    return ", ".join(_figure(of.get(case, []), reasons) or "not run" for case in CASES)


def _figure(rows: Rows, reasons: Reasons) -> str:
    """Return the figure of what was right; the verdict otherwise, and the worst of several."""
    ran = [row for row in rows if row["verdict"] != "impossible"]
    if not ran:
        return "n/a" if rows else ""
    row = min(ran, key=lambda row: WORST_FIRST.index(row["verdict"]))
    if row["verdict"] not in RIGHT:
        return f"{row['verdict']}{reasons.mark([row])}"
    if row.get("difference") is not None:
        return f"{row['difference']:.0e}" if row["difference"] else "0"
    if row.get("correlation") is not None:
        return floor(row["correlation"])
    return str(row["verdict"])


def _impossible(found: dict[str, dict[str, Rows]]) -> Iterator[str]:
    """Yield which pipelines cannot do which cases, reason by reason."""
    cases: dict[tuple[str, str], dict[str, None]] = {}
    rows = [row for of in found.values() for rows in of.values() for row in rows]
    for name, of_title in by_title(rows).items():
        for row in of_title:
            if row["verdict"] == "impossible":
                cases.setdefault((name, row["why"]), {})[row["case"]] = None
    pipelines: dict[tuple[str, str], list[str]] = {}
    for (name, why), of_name in cases.items():
        which = ", ".join(case for case in CASES if case in of_name)
        pipelines.setdefault((why, which), []).append(name)
    if pipelines:
        yield from ["## n/a: what pipelines cannot do, with unicb or without", ""]
        yield from (f"- {why} ({of}): {'; '.join(names)}" for (why, of), names in pipelines.items())
        yield ""
