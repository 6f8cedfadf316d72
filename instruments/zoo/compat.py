"""Does unicb do in another environment what it does in the one that it was measured in?

In each, a part of the zoo is run: entries that together have every way of guidance, every order and
every layout of latents, as far as the release has them. Guidance is cut, the run is stopped, and
its preview is looked at, as ``coverage-cfg``, ``coverage-stops`` and ``coverage-previews`` do it.
"""

from __future__ import annotations

import gc
import json
import platform
from collections import Counter
from collections.abc import Iterator
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

from unicb.pipelines import facts_owner
from unicb.pipelines.fingerprint import is_proven
from unicb.pipelines.source import CallSource
from zoo.coverage import CFG, PREVIEWS, STOPS, Subject, classes, facts_named
from zoo.entry import CASES, Entry
from zoo.families import entries, family_names
from zoo.framework import Framework

SUBJECTS: dict[str, Subject] = {"cut": CFG, "stop": STOPS, "preview": PREVIEWS}
#: Packages whose versions matter, where they are installed.
PACKAGES = (
    *("diffusers", "mindone", "torch", "mindspore", "transformers", "huggingface_hub"),
    *("accelerate", "numpy"),
)
TWICE = 2
Feature: TypeAlias = tuple[str, Any]


def features(name: str) -> frozenset[Feature]:
    """Return the features of a class in which classes differ."""
    facts = facts_named(name)
    if facts is None:
        return frozenset()
    found: dict[str, Any] = {"layout": facts.layout, "way": facts.cfg}
    if facts.cfg != "none":
        found |= {
            "order": facts.order,
            "denoisers": len(facts.denoisers),
            "companions": bool(facts.companions),
            "combination": facts.combination,
            "scale": facts.guidance_scale,
            "a list": facts.listed,
            "more tokens": facts.tail,
            "rows of frames": facts.frames_axis is not None,
            "calls that fill a cache": bool(facts.fills),
        }
    return frozenset(found.items())


def chosen(fx: Framework) -> Iterator[tuple[Entry, Any]]:
    """Yield entries, with their pipelines, that have every feature that any class of this release
    has: each twice, where two classes have it.

    The one with most of those that are still wanted comes first; of several, the first of the zoo.
    """
    every = [entry for family in family_names() for entry in entries(family)]
    left = [e for e in every if fx.name in e.frameworks and not e.not_built]
    seen = Counter[Feature]()

    def wanted(entry: Entry) -> int:
        return sum(seen[feature] < TWICE for feature in features(entry.name))

    while left:
        best = max(left, key=wanted)
        if not wanted(best):
            return
        left.remove(best)
        fx.seed()
        try:
            pipeline = best.build(fx)
        except Exception as failure:  # mostly a class that this release does not have
            print(f"{best.title}: {type(failure).__name__}: {str(failure)[:80]}", flush=True)
            left = [entry for entry in left if entry.name != best.name]
            continue
        left = [entry for entry in left if entry.name != best.name]
        seen.update(features(best.name))
        yield best, pipeline


def measure(fx: Framework) -> list[dict[str, Any]]:
    """Return a row for each entry: its verdicts, and the reason for each that is neither exact nor
    right.

    Every one is run with the largest case that it can do.
    """
    rows = []
    for number, (entry, pipeline) in enumerate(chosen(fx), 1):
        case = [case for case in CASES if case not in entry.impossible][-1]
        row: dict[str, Any] = {"class": entry.name, "variant": entry.variant, "case": case}
        for what, subject in SUBJECTS.items():
            outcome = subject.measure(entry, fx, pipeline, CASES[case])
            row[what] = outcome.verdict
            if outcome.why:
                row[f"{what}: why"] = " ".join(outcome.why.split())
            print(f"{number} {entry.title}: {what}: {outcome.verdict} {outcome.why}", flush=True)
        rows.append(row)
        gc.collect()
    return rows


def loops_of(fx: Framework) -> dict[str, int]:
    """Count the release's classes that call back; on how many of their loops the facts were proven,
    and how many are looked at in their first step with guidance."""
    found = {"classes": 0, "proven": 0, "looked at": 0, "without guidance": 0}
    for name, kind in classes(fx).items():
        owner, facts = facts_owner(kind), facts_named(name)
        found["classes"] += 1
        if facts is not None and facts.cfg == "none":
            found["without guidance"] += 1
        elif owner is not None and is_proven(owner.__name__, CallSource.of(kind)):
            found["proven"] += 1
        else:
            found["looked at"] += 1
    return found


def versions() -> dict[str, str]:
    """Return the versions of Python, and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write(fx: Framework, name: str, path: Path) -> list[dict[str, Any]]:
    """Measure this environment, and put it into the file under its name."""
    loops, rows = loops_of(fx), measure(fx)
    known: dict[str, Any] = {}
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
    about = {"framework": fx.name, "versions": versions(), "date": date.today().isoformat()}
    known[name] = {**about, "loops": loops, "rows": rows}
    path.write_text(_text(known), encoding="utf-8")
    return rows


def _text(known: dict[str, Any]) -> str:
    """Write JSON with a line for each row."""
    lines = []
    for name in sorted(known):
        about, rows = {**known[name]}, known[name]["rows"]
        del about["rows"]
        head = json.dumps(about)[:-1]
        listed = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        lines.append(f'{json.dumps(name)}: {head}, "rows": [\n{listed}\n ]}}')
    return "{\n" + ",\n".join(lines) + "\n}\n"
