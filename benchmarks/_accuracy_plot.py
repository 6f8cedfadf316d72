"""The plot of cut_quality.py: what is right, and what differs, over the rows computed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

#: Figures by their names and cases.
Figures = Mapping[tuple[str, str], Mapping[str, Any]]

RIGHT, DIFFERENCE = "right", "difference to the uncut picture"
LABELS = {
    RIGHT: "right in all three [%]",
    DIFFERENCE: "difference to the uncut picture [levels of 255]",
}
#: The width of the windows that are shown by where they begin.
WIDTH = 0.4


class Family(NamedTuple):
    """Ways whose names begin alike: what the legend says, colour and markers, and how many points
    above its own each label is."""

    beginning: str
    legend: str
    colour: str
    markers: str
    above: int


CUTS = Family("CFGCutoff", "CFGCutoff(ratio)", "tab:blue", "o-", -10)
WINDOWS = Family("GuidanceInterval", "GuidanceInterval(start, stop)", "tab:orange", "s", 5)
NONE = Family("guidance scale 1", "guidance scale 1.0", "tab:gray", "D", 0)


def draw(figures: Sequence[Mapping[str, Any]], uncut: str, path: Path) -> None:
    """Draw the figures (as dicts) of all ways as a PNG file; ``uncut`` is the way compared with."""
    from matplotlib.figure import Figure

    by = {(item["name"], item["case"]): item for item in figures}
    names = list(dict.fromkeys(item["name"] for item in figures))
    sheet = Figure(figsize=(15, 5), dpi=100, layout="constrained")
    over_rows, by_start, differences = sheet.subplots(1, 3)
    for axes, what in ((over_rows, RIGHT), (differences, DIFFERENCE)):
        for family in (CUTS, WINDOWS, NONE):
            chosen = [name for name in names if name.startswith(family.beginning)]
            rows = [by[name, "rows"]["median"] for name in chosen]
            _points(axes, by, chosen, rows, what, family)
            _labels(axes, by, chosen, rows, what, family)
        axes.set_xlabel("rows computed [% of the uncut run]")
    windows = {name: start for name in names if (start := _start(name)) is not None}
    _points(by_start, by, list(windows), list(windows.values()), RIGHT, WINDOWS)
    by_start.set_xlabel(f"start of a window of {WIDTH:g} [share of the steps]")
    for axes, what in ((over_rows, RIGHT), (by_start, RIGHT), (differences, DIFFERENCE)):
        if (item := by.get((uncut, what))) is not None:
            axes.axhspan(item["lower"], item["upper"], color="tab:green", alpha=0.15, lw=0)
            axes.axhline(item["median"], color="tab:green", lw=1, label=uncut)
        axes.set_ylabel(LABELS[what])
        axes.grid(alpha=0.3)
    over_rows.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(path)


def _points(
    axes: Any,
    by: Figures,
    names: Sequence[str],
    places: Sequence[float],
    what: str,
    family: Family,
) -> None:
    """Draw points with their intervals, over ``places``."""
    found = [by[name, what] for name in names]
    if not found:
        return
    values = [item["median"] for item in found]
    down = [item["median"] - item["lower"] for item in found]
    up = [item["upper"] - item["median"] for item in found]
    axes.errorbar(
        places, values, (down, up), fmt=family.markers, color=family.colour,
        label=family.legend, capsize=2, ms=4,
    )  # fmt: skip


def _labels(
    axes: Any, by: Figures, names: Sequence[str], places: Sequence[float], what: str, family: Family
) -> None:
    """Write the arguments of ways at their points, but for those that the middle panel tells
    apart."""
    for name, x in zip(names, places, strict=True):
        if family is not WINDOWS or _start(name) is None:
            axes.annotate(
                " to ".join(f"{one:g}" for one in _arguments(name)), (x, by[name, what]["median"]),
                xytext=(5, family.above), textcoords="offset points", fontsize=8,
                color=family.colour,
            )  # fmt: skip


def _start(name: str) -> float | None:
    """Return where the window of a way begins, if it is as wide as those that are compared."""
    arguments = _arguments(name)
    start, stop = (0.0, *arguments)[-2:] if arguments else (0.0, 0.0)
    return start if abs(stop - start - WIDTH) < 1e-9 else None


def _arguments(name: str) -> list[float]:
    """Return the numbers in the brackets of a way's name."""
    numbers = re.search(r"\((.*)\)", name)
    return [float(one) for one in numbers[1].split(",")] if numbers else []
