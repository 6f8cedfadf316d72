"""The page about modular pipelines, from what was measured."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

from zoo.framework import FRAMEWORKS, Framework
from zoo.modular.entries import modular_entries
from zoo.modular.measure import WHAT, Outcomes

#: From the worst to the best: what is said of a class is the worst of its runs.
RANKS = ("wrong", "failed", "refused", "no guidance", "otherwise", "exact")
_NAMES = {
    "steps": "steps",
    "edit": "edit",
    "cut": "cut",
    "schedule": "schedule",
    "rule": "rule",
    "stop": "stop",
    "preview": "preview",
}
_LIBRARIES = {"torch": "diffusers", "mindspore": "mindone"}


def write(found: Mapping[str, Mapping[str, Outcomes]], fx: Framework, docs: Path) -> None:
    """Write the figures of a framework, and the page from those of all."""
    folder = docs / "coverage"
    measured = {
        "date": date.today().isoformat(),
        "versions": dict(fx.backend.versions()),
        "classes": {
            title: {case: asdict(one) for case, one in cases.items()}
            for title, cases in found.items()
        },
    }
    path = folder / f"modular-{fx.name}.json"
    path.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    write_page(docs)


def write_page(docs: Path) -> None:
    """Write ``coverage/modular.md`` from the files beside it."""
    (docs / "coverage" / "modular.md").write_text(page(docs / "coverage"), encoding="utf-8")


def page(folder: Path) -> str:
    """Return the text of the page; ``folder`` has the files."""
    return "\n".join(_page(folder)) + "\n"


def totals(folder: Path, framework: str) -> dict[str, Counter[str]]:
    """Count the classes of a framework by what they came to, for each thing that was tried."""
    path = folder / f"modular-{framework}.json"
    found: dict[str, Counter[str]] = {what: Counter() for what in WHAT}
    if path.exists():
        classes: dict[str, list[dict[str, str]]] = {}
        for title, cases in json.loads(path.read_text(encoding="utf-8"))["classes"].items():
            runs = [one["verdicts"] for one in cases.values()]
            classes.setdefault(title.partition(" ")[0], []).extend(runs)
        for runs in classes.values():
            for what in WHAT:
                found[what][worst(run.get(what, "failed") for run in runs)] += 1
    return found


def total_lines(folder: Path, columns: Sequence[str]) -> Iterator[str]:
    """Yield a table of totals for a page with these columns, "exact or right" among them, and the
    number of classes in the last."""
    lines = []
    for framework, library in _LIBRARIES.items():
        for what, counts in totals(folder, framework).items():
            if all_of_it := sum(counts.values()):
                numbers = [
                    counts["exact" if name.startswith("exact") else name] for name in columns
                ]
                cells = " | ".join(str(number) for number in (*numbers, all_of_it))
                lines.append(f"| {library} | {what} | {cells} |")
    if lines:
        head = " | ".join([*columns, "in all"])
        yield f"| [modular pipelines](coverage/modular.md) | | {head} |"
        yield f"|---|---|{'---:|' * (len(columns) + 1)}"
        yield from (*lines, "")


def worst(verdicts: Iterable[str]) -> str:
    """Return the worst of these; "not built" if there are none."""
    return min(verdicts, key=RANKS.index, default="not built")


def _page(folder: Path) -> Iterator[str]:
    yield "# Coverage: modular pipelines"
    yield ""
    yield "Made by `nox -s coverage-modular`; not written by hand. How it works is in"
    yield "[modular.md](../modular.md)."
    yield ""
    yield "Each class was built small, of random weights, without its text encoders, and run on a"
    yield "CPU in float32 with one prompt, with two, and with two pictures for a prompt."
    yield ""
    yield "- **steps**: a callback that only looks changes no bit, and sees each step once."
    yield "- **edit**: latents that a callback changes are what the loop goes on with, to the bit."
    yield "- **cut**: `CFGCutoff` against a guider that combines the conditional prediction with"
    yield "  itself after the cut, to within 1e-5 of a standard deviation; calls of the denoiser"
    yield "  are saved; a plain call afterwards gives the bits of one before."
    yield "- **schedule**: `GuidanceSchedule` of one scale against a guider of that scale."
    yield "- **rule**: plain guidance of one scale by a `GuidanceRule`, against the same."
    yield "- **stop**: `Interrupt` against a loop that does nothing after that step, to the bit."
    yield "- **preview**: at the last step, every channel of the latents is where it is in those"
    yield "  that the call returns."
    for framework in FRAMEWORKS:
        path = folder / f"modular-{framework}.json"
        if path.exists():
            yield from _of_framework(framework, folder)


def _of_framework(framework: str, folder: Path) -> Iterator[str]:
    measured = json.loads((folder / f"modular-{framework}.json").read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    yield from ("", f"## {_LIBRARIES[framework]}", "", f"{versions} ({measured['date']}).", "")
    counts = totals(folder, framework)
    ranks = [*reversed(RANKS), "not built"]
    yield f"| | {' | '.join(ranks)} |"
    yield f"|---|{'---:|' * len(ranks)}"
    for what in WHAT:
        yield f"| {what} | {' | '.join(str(counts[what][rank]) for rank in ranks)} |"
    yield from ("", f"| class | {' | '.join(_NAMES.values())} | calls saved |")
    yield f"|---|{'---|' * len(WHAT)}---:|"
    notes: dict[str, list[str]] = {}
    for title, cases in measured["classes"].items():
        runs = list(cases.values())
        said = [worst(run["verdicts"].get(what, "failed") for run in runs) for what in WHAT]
        saved = [run["saved"] for run in runs if run["saved"] is not None]
        share = f"{min(saved):.0%}" if saved else ""
        yield f"| {title} | {' | '.join(said)} | {share} |"
        for run in runs:
            for why in run["why"].values():
                if why:
                    notes.setdefault(why, []).append(title)
    left = [x for x in modular_entries() if x.not_built and framework in x.frameworks]
    yield from ("", "Why not exact:", "")
    for why, titles in notes.items():
        yield f"- {', '.join(dict.fromkeys(titles))}: {why}"
    for entry in left:
        yield f"- {entry.title}: not built: {entry.not_built}"
