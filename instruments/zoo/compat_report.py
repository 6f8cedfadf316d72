"""The page about versions, from what was measured in each environment."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.compat import SUBJECTS

FILE = "compatibility.json"
GOOD = ("exact", "right", "otherwise", "no guidance")
INTRODUCTION = """\
# What works with which versions

Made by `nox -s compat`; not written by hand. The same, for programs:
[compatibility.json](compatibility.json).

`pyproject.toml` claims what this page shows, and no more. In each environment a part of the zoo of
[coverage.md](coverage.md) was run: entries that together have every way of guidance, every order of
its parts and every layout of latents that the release has (each twice, where two classes have it),
with the largest request that they can do. The names of environments say what differs from the
newest one.

- **cut**: `CFGCutoff` after the second step, against a run that computes both parts to its end.
- **stop**: `Interrupt` and cancel, against the latents of the step that was the last.
- **preview**: what `Preview` shows, against what the pipeline hands to its decoder.
- **exact**: the same, to the bounds of [coverage.md](coverage.md); "right" of previews, and what
  stops and decodes more than the latents of the stop, count, too. **refused**: by `bind`, or before
  anything is changed. **wrong**: neither. **failed**: the pipeline fails without unicb, too.

Loops: of the classes that call a step-end callback, on how many the facts are *proven*, by the
fingerprint of their loop; how many are *looked at* in their first step with guidance, before it is
changed ([design.md](design.md#a-class-is-known-by-its-loop)); and how many have no guidance.
"""
SHOWN = {
    "torch": ("python", "diffusers", "torch", "transformers", "huggingface_hub", "numpy"),
    "mindspore": ("python", "mindone", "mindspore", "transformers", "numpy"),
}


def write(docs: Path) -> None:
    """Write ``compatibility.md`` in the folder, from ``compatibility.json``, if that is there."""
    file = docs / FILE
    if file.is_file():
        measured = json.loads(file.read_text(encoding="utf-8"))
        (docs / "compatibility.md").write_text(page(measured), encoding="utf-8")


def page(measured: dict[str, Any]) -> str:
    """Return the text of the page."""
    lines = [INTRODUCTION]
    for framework, packages in SHOWN.items():
        found = {k: v for k, v in measured.items() if v["framework"] == framework}
        if found:
            lines += [f"## {packages[1]}", "", *_table(found, packages), ""]
    lines += ["## What is not exact", "", *_rest(measured)]
    return "\n".join(lines).rstrip() + "\n"


def _table(found: dict[str, Any], packages: tuple[str, ...]) -> Iterator[str]:
    yield _line("environment", *packages, "loops", *SUBJECTS, "date")
    yield _line(*["---"] * (len(packages) + len(SUBJECTS) + 3))
    for name, about in found.items():
        loops = about["loops"]
        counted = (
            f"{loops['proven']} proven, {loops['looked at']} looked at, "
            f"{loops['without guidance']} without guidance"
        )
        versions = [about["versions"].get(package, "") for package in packages]
        cells = [_counts([row[what] for row in about["rows"]]) for what in SUBJECTS]
        yield _line(name, *versions, counted, *cells, about["date"])


def _counts(verdicts: list[str]) -> str:
    """Say how many there are of each verdict, the good ones together."""
    counts = Counter("exact" if verdict in GOOD else verdict for verdict in verdicts)
    shown = [f"{counts[verdict]} {verdict}" for verdict in ("exact", "refused", "wrong", "failed")]
    return ", ".join(one for one in shown if not one.startswith("0 "))


def _rest(measured: dict[str, Any]) -> Iterator[str]:
    """Yield what was not good, with the environments in which it was so."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for name, about in measured.items():
        for row in about["rows"]:
            title = f"{row['class']}, {row['variant']}" if row["variant"] else row["class"]
            for what in SUBJECTS:
                if row[what] not in GOOD:
                    key = (title, what, row[what], row.get(f"{what}: why", ""))
                    found.setdefault(key, []).append(name)
    yield _line("class", "what", "verdict", "why", "environments")
    yield _line(*["---"] * 5)
    for (title, what, verdict, why), names in sorted(found.items()):
        where = "all" if len(names) == len(measured) else ", ".join(names)
        yield _line(title, what, verdict, why.replace("|", "\\|"), where)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
