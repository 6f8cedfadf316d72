"""The pages about coverage, from what was measured on each framework: one of totals and an index,
and one for each family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from zoo import cut_report, guidance_report, lookup, preview_report, stop_report
from zoo.family_report import about, families, family_of, page
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
    read,
    source_of_row,
)
from zoo.modular import report as modular_report
from zoo.sources import CALLBACK, DEPRECATED, SCHEDULER
from zoo.verdicts import verdicts

#: Of a line in the list of classes, so that the page stays short.
WIDTH = 120
TITLE = "# Coverage: what works on which pipelines, and how exactly\n"
INTRODUCTION = """\
Here is every pipeline class of diffusers, and of mindone.diffusers, that has a denoising loop:
built small, and run with unicb's callbacks. Most call a step-end callback; in the others, a step's
end is told [by their scheduler](without_callback.md). Look for a class in the
[list of classes](#classes), or [look it up](pipelines.md). Its name leads to the page of its
family, with a verdict for each callback on each framework, the reason where it is not *exact* or
*right*, and the figures of each variant.
What came of the same loops as if unicb knew none of them: [observed.md](observed.md).

Made by `nox -s coverage-report` from the [files](#the-files) that measuring writes; not written by
hand.
"""
COLUMNS = {
    "exact or right": ("exact", "right"),
    **{name: (name,) for name in ("otherwise", "refused", "no guidance")},
    **{name: (name,) for name in ("wrong", "failed", "not built")},
}
WRONG = """\
- **wrong**: unicb does not do what is said below; **failed**: the pipeline itself failed.
- **not built**: no tiny pipeline of the class was run.
- **n/a**: a pipeline cannot do a case by itself, with unicb or without; the family's page says why.
"""
FILES = """\
Each has the versions, the date, and `rows`: one for each class, variant and case, with its family,
its verdict, the reason (`why`), and its figures. `nox -s coverage-report` makes the pages from them
and measures nothing.
"""
MEASURED = {
    "": "guidance that is cut",
    "guidance-": "intervals and schedules of guidance",
    "rules-": "guidance by a rule",
    "previews-": "previews",
    "stops-": "stops",
    "steps-": "steps of classes that call no callback",
}
#: What the table of each source is called.
SOURCES = {
    CALLBACK: "classes that call a step-end callback",
    SCHEDULER: "classes that call none, and step a scheduler",
    DEPRECATED: "such classes that diffusers has deprecated",
}


def write(docs: Path) -> None:
    """Write ``coverage.md``, ``coverage/<family>.md``, ``pipelines.md`` and ``pipelines.json`` in
    the folder, from those of the files
    ``coverage/<framework>.json``, ``guidance-<framework>.json``, ``rules-<framework>.json``,
    ``previews-<framework>.json`` and ``stops-<framework>.json`` that are there."""
    for name, text in pages(docs / "coverage").items():
        (docs / name).write_text(text, encoding="utf-8")


def pages(folder: Path) -> dict[str, str]:
    """Return the text of each page, by its path in the folder of documents; ``folder`` has the
    files."""
    found = read(folder)
    blocks = [*modular_report.total_lines(folder, list(COLUMNS))]
    made = {f"coverage/{family}.md": page(family, found) for family in families(found)}
    if blocks:
        made["coverage/modular.md"] = modular_report.page(folder)
    parts = [TITLE, INTRODUCTION, "## Totals\n", *_totals(found), *blocks, WRONG]
    parts += [*_sections(found), "## Families\n", *_families(found), ""]
    parts += ["## Classes\n", *_index(found), "## The files\n", FILES, *_files(found)]
    made["coverage.md"] = "\n".join(parts).rstrip() + "\n"
    return made | lookup.files(found, folder)


def _totals(found: Found) -> Iterator[str]:
    for name, library in LIBRARIES.items():
        # By versions, and then by the day: usually the same of all measures.
        measured: dict[str, dict[str, list[str]]] = {}
        for measure in MEASURES:
            if measure.rows(found, name):
                of = found[name][measure.prefix]
                measured.setdefault(_versions(of), {}).setdefault(of["date"], []).append(
                    measure.name
                )
        for versions, days in measured.items():
            listed = (f"{', '.join(names)} ({day})" for day, names in days.items())
            yield f"{library}: {versions}: {'; '.join(listed)}."
            yield ""
    for source, called in SOURCES.items():
        if lines := list(_counts(found, source)):
            yield f"| {called} | | {' | '.join(COLUMNS)} | in all |"
            yield "|---|---|" + "---:|" * (len(COLUMNS) + 1)
            yield from (*lines, "")


def _counts(found: Found, source: str) -> Iterator[str]:
    """Yield a line for each measure of the classes of a source."""
    for name, library in LIBRARIES.items():
        for measure in MEASURES:
            rows = [row for row in measure.rows(found, name) if source_of_row(row) == source]
            if verdict := list(verdicts(rows).values()):
                counts = [sum(verdict.count(v) for v in which) for which in COLUMNS.values()]
                numbers = " | ".join(str(number) for number in (*counts, len(verdict)))
                callback = f"`{measure.callback}`" if measure is not STEPS else measure.callback
                yield f"| {library} | {measure.name}: {callback} | {numbers} |"


def _versions(measured: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in measured["versions"].items())


def _sections(found: Found) -> Iterator[str]:
    """Yield what each measure's verdicts and figures mean, and the sum of them."""

    def guidance(library: str, name: str) -> Iterator[str]:
        both = [(m.callback, _of_callbacks(m, found, name)) for m in (INTERVAL, SCHEDULE, RULE)]
        works = [guidance_report.headline(callback, rows) for callback, rows in both if rows]
        if works:
            yield f"{library}: {', '.join(works)}, in all variants that were run."

    def of(measure: Any, report: Any) -> Any:
        return lambda library, name: report.headline(library, _of_callbacks(measure, found, name))

    for measure, report, headline in (
        (CUT, cut_report, of(CUT, cut_report)),
        (INTERVAL, guidance_report, guidance),
        (PREVIEW, preview_report, of(PREVIEW, preview_report)),
        (STOP, stop_report, of(STOP, stop_report)),
    ):
        if any(measure.rows(found, name) for name in LIBRARIES):
            yield f"## {report.TITLE}\n"
            for name, library in LIBRARIES.items():
                yield from (f"{line}\n" for line in headline(library, name))
            yield report.INTRODUCTION


def _of_callbacks(measure: Measure, found: Found, name: str) -> Rows:
    """Return the rows of classes that call a callback, of which the sections' sums are."""
    return [row for row in measure.rows(found, name) if source_of_row(row) == CALLBACK]


def _all(found: Found, name: str) -> Rows:
    return [row for measure in MEASURES for row in measure.rows(found, name)]


def _families(found: Found) -> Iterator[str]:
    classes = {
        name: {(family_of(row), row["class"]) for row in _all(found, name)} for name in LIBRARIES
    }
    yield f"| family | | {' | '.join(f'classes of {library}' for library in LIBRARIES.values())} |"
    yield "|---|---|" + "---:|" * len(LIBRARIES)
    for family in families(found):
        counts = [sum(of == family for of, _ in classes[name]) for name in LIBRARIES]
        numbers = " | ".join(map(str, counts))
        yield f"| [{family}](coverage/{family}.md) | {about(family)} | {numbers} |"


def _index(found: Found) -> Iterator[str]:
    """Yield all classes in alphabetical order, each with a link to its family's page."""
    family = {row["class"]: family_of(row) for name in LIBRARIES for row in _all(found, name)}
    for _, kinds in groupby(sorted(family, key=str.lower), lambda kind: kind[0]):
        yield from _item(f"[{kind}][{family[kind]}]" for kind in kinds)
    yield ""
    yield from (f"[{name}]: coverage/{name}.md" for name in families(found))
    yield ""


def _item(words: Iterable[str]) -> Iterator[str]:
    """Yield an item of a list: the words with commas between them, in lines."""
    line = "-"
    for number, word in enumerate(words):
        comma = "," if number else ""
        if len(f"{line}{comma} {word},") > WIDTH:
            yield line + comma
            line = f"  {word}"
        else:
            line = f"{line}{comma} {word}"
    yield line


def _files(found: Found) -> Iterator[str]:
    for name, library in LIBRARIES.items():
        for prefix in found.get(name, {}):
            path = f"{prefix}{name}.json"
            yield f"- [{path}](coverage/{path}): {MEASURED[prefix]}, on {library}"
