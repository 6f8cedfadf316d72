"""Write docs/benchmarks.md from the results in docs/benchmarks/*.json, and from nothing else."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from _common import RESULTS

INTRODUCTION = """\
# Benchmarks

Made by `nox -s bench` and `benchmarks/report.py`; not written by hand. Each script in `benchmarks/`
runs by itself, too, and `--help` tells how. What is compared runs in turn, in every round. A figure
is the median over all rounds, with the quartiles in brackets. Times are of the machine that is
named; ratios and shares are what to look at, and come first. Bold figures miss their target.
"""

#: Units of what compares: these come first.
RATIOS = ("ratio", "%")


def write(results: Path, page: Path) -> None:
    """Write the page from all ``*.json`` files in the folder ``results``.

    Raises:
        FileNotFoundError: there are none.
    """
    found = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))
    ]
    if not found:
        raise FileNotFoundError(f"no results in {results}: run nox -s bench, or a script")
    parts = [INTRODUCTION]
    for _, group in groupby(found, key=lambda result: result["benchmark"]):
        measured = list(group)
        parts += [f"## {measured[0]['title']}\n", f"{measured[0]['method'].rstrip()}\n"]
        for result in measured:
            parts += _result(result)
    page.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def _result(result: dict[str, Any]) -> Iterator[str]:
    yield f"### {result['framework']}\n"
    for about in (result["machine"], result["versions"], result["settings"]):
        yield f"- {'; '.join(f'{key} {_plain(value)}' for key, value in about.items())}"
    yield f"- measured on {result['date']}\n"
    if result["notes"]:
        yield "".join(f"- {note}\n" for note in result["notes"])
    if picture := result.get("picture"):
        yield "![{}]({})\n".format(*picture)
    figures = result["figures"]
    for unit in sorted(
        {item["unit"] for item in figures}, key=lambda unit: (unit != "ratio", unit)
    ):
        yield from _table([item for item in figures if item["unit"] == unit], unit)


def _plain(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(figures: Sequence[dict[str, Any]], unit: str) -> Iterator[str]:
    """Yield one row for each quantity, with one column for each case."""
    cases = list(dict.fromkeys(item["case"] for item in figures))
    cells = {(item["name"], item["case"]): _cell(item) for item in figures}
    targets = {item["name"]: item["at_most"] for item in figures}
    aimed = any(target is not None for target in targets.values())
    head = [unit, *(["at most"] if aimed else []), *cases]
    yield f"| {' | '.join(head)} |"
    yield "|---|" + "---:|" * (len(head) - 1)
    for name, target in targets.items():
        aim = ["" if target is None else f"{target:g}"] if aimed else []
        yield f"| {' | '.join([name, *aim, *(cells.get((name, case), '') for case in cases)])} |"
    yield ""


def _cell(item: dict[str, Any]) -> str:
    median, lower, upper = (_number(item[key]) for key in ("median", "lower", "upper"))
    missed = item["at_most"] is not None and item["median"] > item["at_most"]
    shown = f"**{median}**" if missed else median
    return shown if lower == upper else f"{shown} ({lower}–{upper})"  # noqa: RUF001


def _number(value: float) -> str:
    """Write three digits that count, and no exponent."""
    return f"{float(f'{value:.3g}'):,.12g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: docs/benchmarks")
    parser.add_argument("--page", type=Path, help="default: beside the folder of the results")
    options = parser.parse_args()
    page = options.page or options.results.with_suffix(".md")
    write(options.results, page)
    print(f"written: {page}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
