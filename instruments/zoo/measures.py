"""Read what was measured on every class, as the pages about coverage tell it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.framework import FRAMEWORKS
from zoo.preview_report import makes
from zoo.sources import CALLBACK

LIBRARIES = {"torch": "diffusers", "mindspore": "mindone"}
#: Files by framework, and then by what their names begin with.
Found = dict[str, dict[str, dict[str, Any]]]
Rows = list[dict[str, Any]]
_LINE = "\n\n-----"


@dataclass(frozen=True)
class Measure:
    """One question about every class.

    Attributes:
        name: the heading of its columns.
        callback: name of the callback that was bound.
        prefix: prefix of the names of its files.
        part: name of its part of a row, in files of two measures.
    """

    name: str
    callback: str
    prefix: str
    part: str = ""

    def rows(self, found: Found, framework: str) -> Rows:
        """Return what was found, with each reason in one line; empty where nothing was measured."""
        measured = found.get(framework, {}).get(self.prefix)
        return [] if measured is None else [self._row(row) for row in measured["rows"]]

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        # Where a class was run with neither of two callbacks, the row itself says why.
        row = {**row, **((row[self.part] if self.part else None) or {})}
        why = str(row["why"])
        if row["verdict"] == "failed":
            # Below a line, MindSpore says where in its C++ code it was.
            why = f"without unicb, too: {why.partition(_LINE)[0]}"
        why = " ".join(why.split())
        if self.name == "preview" and row["verdict"] == "refused" and makes(row["class"]):
            why = f"{why} ({makes(row['class'])})"
        return {**row, "why": why}


CUT = Measure("cut", "CFGCutoff", "")
INTERVAL = Measure("interval", "GuidanceInterval", "guidance-", "interval")
SCHEDULE = Measure("schedule", "GuidanceSchedule", "guidance-", "schedule")
RULE = Measure("rule", "GuidanceRule", "rules-")
PREVIEW = Measure("preview", "Preview", "previews-")
STOP = Measure("stop", "Interrupt", "stops-")
# Of classes that call no callback.
STEPS = Measure("steps", "a callback that looks, or edits", "steps-")
MEASURES = (CUT, INTERVAL, SCHEDULE, RULE, PREVIEW, STOP, STEPS)


def read(folder: Path) -> Found:
    """Return all files of the folder that are there."""
    prefixes = dict.fromkeys(measure.prefix for measure in MEASURES)
    files = {
        name: {prefix: folder / f"{prefix}{name}.json" for prefix in prefixes}
        for name in FRAMEWORKS
    }
    return {
        name: {
            prefix: json.loads(path.read_text(encoding="utf-8"))
            for prefix, path in paths.items()
            if path.is_file()
        }
        for name, paths in files.items()
    }


def source_of_row(row: dict[str, Any]) -> str:
    """Return what shows the steps of a row's class; files say so where it is not a callback."""
    return str(row.get("told_by", CALLBACK))


def title(row: dict[str, Any]) -> str:
    """Return the class and the variant."""
    return f"{row['class']}, {row['variant']}" if row["variant"] else str(row["class"])


def by_title(rows: Iterable[dict[str, Any]]) -> dict[str, Rows]:
    """Return the rows by class and variant, in the order of their names."""
    found: dict[str, Rows] = {}
    for row in sorted(rows, key=lambda row: (row["class"].lower(), row["variant"])):
        found.setdefault(title(row), []).append(row)
    return found
