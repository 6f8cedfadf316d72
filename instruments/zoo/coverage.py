"""Run every entry of the zoo, and note what came of it: how guidance is cut, what previews show,
how runs are stopped."""

from __future__ import annotations

import gc
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from unicb.pipelines import PipelineFacts, facts_for, facts_owner, known_pipelines
from zoo.entry import CASES, Entry, Request
from zoo.families import entries, family_names
from zoo.framework import Framework
from zoo.guidance import Guided
from zoo.guidance import measure as measure_guidance
from zoo.measure import Outcome, has_none, measure
from zoo.observed import Observed
from zoo.observed import measure as observe
from zoo.previews import Shown, bare_class
from zoo.previews import measure as measure_previews
from zoo.rules import Ruled
from zoo.rules import measure as measure_rules
from zoo.sources import CALLBACK, scheduled_classes, source_of, why_refused
from zoo.steps import Stepped
from zoo.steps import measure as measure_steps
from zoo.stops import Stopped
from zoo.stops import bare_class as without_stop
from zoo.stops import measure as measure_stops

FAMILIES = family_names()


@dataclass(frozen=True)
class Subject:
    """A subject is what is measured on every class.

    Attributes:
        outcome: a function that makes an outcome from a verdict and a reason.
        measure: a function that returns the outcome of one request.
        about: a function that returns further notes about a class, from its facts.
        without_entry: a function that returns the outcome for a class that no entry builds.
        all_cases: True: every entry is run with every case. False: variants of a class are run only
            with the largest case; and on a slow framework only the first entry of each class is
            run, with the largest case.
        one_case: True: every entry is run only with the largest case.
        scheduled_only: True: only classes that call no callback are measured.
    """

    outcome: Callable[[str, str], Any]
    measure: Callable[[Entry, Framework, Any, Request], Any]
    about: Callable[[PipelineFacts | None], dict[str, str]]
    without_entry: Callable[[type], Any]
    all_cases: bool
    one_case: bool = False
    scheduled_only: bool = False


def facts_named(name: str) -> PipelineFacts | None:
    """Return the facts about the class of that name, which need not be importable."""
    return facts_for(type(name, (), {})())


def classes(fx: Framework) -> dict[str, type]:
    """Return all pipeline classes of the framework that take a step-end callback, by name."""
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


def chosen_entries(family: str, fx: Framework, subject: Subject) -> list[Entry]:
    """Return a family's entries to measure on the framework."""
    found = [entry for entry in entries(family) if fx.name in entry.frameworks]
    if subject.all_cases or not fx.takes_long:
        return found
    return list({entry.name: entry for entry in reversed(found)}.values())[::-1]


def cases_of(
    entry: Entry, fx: Framework, subject: Subject, is_first: bool
) -> Mapping[str, Request]:
    """Return the cases to run an entry with, which is the first of its class or a variant."""
    possible = [case for case in CASES if case not in entry.impossible]
    several = is_first and not fx.takes_long and not subject.one_case
    every = subject.all_cases or several or not possible
    chosen = CASES if every else (*entry.impossible, possible[-1])
    return {case: request for case, request in CASES.items() if case in chosen}


def outcomes(
    entry: Entry, fx: Framework, subject: Subject, is_first: bool
) -> Iterator[tuple[str, Any]]:
    """Yield what one entry does with each case."""
    cases = cases_of(entry, fx, subject, is_first)
    if entry.not_built:
        yield from ((case, subject.outcome("not built", entry.not_built)) for case in cases)
        return
    fx.seed()
    try:
        pipeline = entry.build(fx)
    except Exception as failure:
        why = f"building it raised {type(failure).__name__}: {failure}"
        yield from ((case, subject.outcome("not built", why)) for case in cases)
        return
    for case, request in cases.items():
        if case in entry.impossible:
            yield case, subject.outcome("impossible", entry.impossible[case])
        else:
            yield case, subject.measure(entry, fx, pipeline, request)


def cover(
    fx: Framework, out: Path, families: Sequence[str], subject: Subject
) -> list[dict[str, Any]]:
    """Measure everything, or some families anew; the result is in ``out`` after each family."""
    known, scheduled = classes(fx), scheduled_classes(fx)
    if subject.scheduled_only:
        known = {}
    rows: list[dict[str, Any]] = []
    if families:
        measured = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.is_file() else []
        rows = [row for row in measured if row["case"] and row["family"] not in families]
    out.parent.mkdir(parents=True, exist_ok=True)
    every = {family: chosen_entries(family, fx, subject) for family in FAMILIES}
    if subject.scheduled_only:
        every = {name: [e for e in found if e.name in scheduled] for name, found in every.items()}
    listed = {entry.name for found in every.values() for entry in found}
    rest = [
        {**_about(name, "", "", "", subject), **asdict(subject.without_entry(kind))}
        for name, kind in known.items()
        if name not in listed
    ]
    for name, kind in scheduled.items():
        if name not in listed:
            why = why_refused(kind)
            verdict = ("refused", why) if why else ("not built", "nobody has, so far")
            about = {**_about(name, "", "", "", subject), "told_by": source_of(kind)}
            rest.append({**about, **asdict(subject.outcome(*verdict))})
    for family in families or FAMILIES:
        begun: set[str] = set()
        for number, entry in enumerate(every[family], 1):
            for case, outcome in outcomes(entry, fx, subject, entry.name not in begun):
                about = _about(entry.name, entry.variant, family, case, subject)
                if (source := source_of(scheduled.get(entry.name))) != CALLBACK:
                    about["told_by"] = source
                rows.append({**about, **asdict(outcome)})
                progress = f"{family} {number}/{len(every[family])}: {entry.title} / {case}"
                print(f"{progress}: {outcome.verdict} {outcome.why[:120]}", flush=True)
            begun.add(entry.name)
            gc.collect()
        _write(fx, out, [*rows, *rest])
    return [*rows, *rest]


def _write(fx: Framework, out: Path, rows: list[dict[str, Any]]) -> None:
    about = {"versions": dict(fx.backend.versions()), "date": date.today().isoformat()}
    order = {family: number for number, family in enumerate(FAMILIES)}
    rows = sorted(rows, key=lambda row: order.get(row["family"], -1))
    text = json.dumps({**about, "rows": rows}, indent=1)
    out.write_text(text + "\n", encoding="utf-8")


def _about(name: str, variant: str, family: str, case: str, subject: Subject) -> dict[str, Any]:
    more = subject.about(facts_named(name))
    return {"class": name, "variant": variant, "family": family, **more, "case": case}


def _way(facts: PipelineFacts | None) -> dict[str, str]:
    return {"way": "" if facts is None else facts.cfg}


def _cfg_without_entry(kind: type) -> Outcome:
    """Return the outcome of a class that nobody has built: it has no guidance, or it is missing
    here."""
    facts = facts_named(kind.__name__)
    if facts is not None and facts.cfg == "none":
        return Outcome("no guidance" if has_none(facts) else "refused", facts.why_none)
    return Outcome("not built", "nobody has, so far")


def _guided_without_entry(kind: type) -> Guided:
    found = _cfg_without_entry(kind)
    return Guided(found.verdict, found.why)


def _ruled_without_entry(kind: type) -> Ruled:
    found = _cfg_without_entry(kind)
    return Ruled(found.verdict, found.why)


def _observed_without_entry(kind: type) -> Observed:
    found = _cfg_without_entry(kind)
    return Observed(found.verdict, found.why)


def _latents(facts: PipelineFacts | None) -> dict[str, str]:
    if facts is None:
        return {"layout": "", "format": ""}
    return {"layout": facts.layout, "format": facts.latents or ""}


CFG = Subject(Outcome, measure, _way, _cfg_without_entry, all_cases=True)
GUIDANCE = Subject(
    Guided, measure_guidance, _way, _guided_without_entry, all_cases=False, one_case=True
)
RULES = Subject(Ruled, measure_rules, _way, _ruled_without_entry, all_cases=False, one_case=True)
OBSERVED = Subject(Observed, observe, _way, _observed_without_entry, all_cases=False, one_case=True)
STOPS = Subject(
    Stopped, measure_stops, lambda facts: {}, without_stop, all_cases=False, one_case=True
)
PREVIEWS = Subject(Shown, measure_previews, _latents, bare_class, all_cases=False)
STEPS = Subject(
    Stepped,
    measure_steps,
    lambda facts: {},
    lambda kind: Stepped("not built", "nobody has, so far"),
    all_cases=True,
    scheduled_only=True,
)
