"""Run every entry of the zoo with every case, and note what came of it."""

from __future__ import annotations

import gc
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from unicb.pipelines import PipelineFacts, facts_for, facts_owner, known_pipelines
from zoo.entry import CASES, Entry
from zoo.families import entries, family_names
from zoo.framework import Framework
from zoo.measure import Outcome, has_none, measure

FAMILIES = family_names()


def facts_named(name: str) -> PipelineFacts | None:
    """Facts about the class of that name, which need not be importable."""
    return facts_for(type(name, (), {})())


def classes(fx: Framework) -> dict[str, type]:
    """All pipeline classes of the framework that take a step-end callback, by name."""
    base = fx.library.DiffusionPipeline
    found: dict[str, type] = {}
    for name in sorted(dir(fx.library)):
        try:
            kind = getattr(fx.library, name)
        except Exception as failure:  # some of mindone's classes import torch
            print(f"{name} cannot be imported: {failure}", file=sys.stderr)
            continue
        if inspect.isclass(kind) and issubclass(kind, base):
            call = next((vars(k)["__call__"] for k in kind.__mro__ if "__call__" in vars(k)), None)
            takes = call and "callback_on_step_end" in inspect.signature(call).parameters
            # Combined pipelines take one too, and hand it on to those inside them.
            # What only renames a known class is that class.
            renamed = kind.__name__ not in known_pipelines() and facts_owner(kind) is not None
            if takes and hasattr(kind, "_callback_tensor_inputs") and not renamed:
                found[kind.__name__] = kind
    return found


def outcomes(entry: Entry, fx: Framework) -> Iterator[tuple[str, Outcome]]:
    """What one entry does with each case."""
    if entry.not_built:
        yield from ((case, Outcome("not built", entry.not_built)) for case in CASES)
        return
    fx.seed()
    try:
        pipeline = entry.build(fx)
    except Exception as failure:
        why = f"building it raised {type(failure).__name__}: {failure}"
        yield from ((case, Outcome("not built", why)) for case in CASES)
        return
    for case, request in CASES.items():
        if case in entry.impossible:
            yield case, Outcome("impossible", entry.impossible[case])
        else:
            yield case, measure(entry, fx, pipeline, request)


def cover(fx: Framework, out: Path, families: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Measure everything, or some families anew; the result is in ``out`` after each family."""
    known = classes(fx)
    rows: list[dict[str, Any]] = []
    if families:
        measured = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.is_file() else []
        rows = [row for row in measured if row["case"] and row["family"] not in families]
    out.parent.mkdir(parents=True, exist_ok=True)
    every = {family: [e for e in entries(family) if fx.name in e.frameworks] for family in FAMILIES}
    listed = {entry.name for found in every.values() for entry in found}
    rest = [_without_entry(name) for name in known if name not in listed]
    for family in families or FAMILIES:
        for number, entry in enumerate(every[family], 1):
            for case, outcome in outcomes(entry, fx):
                rows.append({**_about(entry, family), "case": case, **asdict(outcome)})
                progress = f"{family} {number}/{len(every[family])}: {entry.title} / {case}"
                print(f"{progress}: {outcome.verdict} {outcome.why[:120]}", flush=True)
            gc.collect()
        _write(fx, out, [*rows, *rest])
    return [*rows, *rest]


def _write(fx: Framework, out: Path, rows: list[dict[str, Any]]) -> None:
    about = {"versions": dict(fx.backend.versions()), "date": date.today().isoformat()}
    order = {family: number for number, family in enumerate(FAMILIES)}
    rows = sorted(rows, key=lambda row: order.get(row["family"], -1))
    text = json.dumps({**about, "rows": rows}, indent=1)
    out.write_text(text + "\n", encoding="utf-8")


def _about(entry: Entry, family: str) -> dict[str, Any]:
    facts = facts_named(entry.name)
    way = "" if facts is None else facts.cfg
    return {"class": entry.name, "variant": entry.variant, "family": family, "way": way}


def _without_entry(name: str) -> dict[str, Any]:
    """A class that nobody has built: it has no guidance, or it is missing here."""
    facts = facts_named(name)
    outcome = Outcome("not built", "nobody has, so far")
    if facts is not None and facts.cfg == "none":
        outcome = Outcome("no guidance" if has_none(facts) else "refused", facts.why_none)
    way = "" if facts is None else facts.cfg
    about = {"class": name, "variant": "", "family": "", "way": way, "case": ""}
    return {**about, **asdict(outcome)}
