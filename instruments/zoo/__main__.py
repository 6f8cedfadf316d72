"""Build tiny pipelines of every class; measure how guidance is cut on them, what previews show, how
runs are stopped.

python -m zoo coverage --framework torch    guidance on every entry; writes the pages, too
python -m zoo coverage wan flux             the same for some families alone
python -m zoo previews [wan flux]           previews, likewise
python -m zoo try wan WanPipeline           guidance on one family, or some of its classes
python -m zoo show wan WanPipeline          previews, likewise
python -m zoo stops [wan flux]              stops of every class
python -m zoo stop wan WanPipeline          stops, likewise
python -m zoo steps [pixart marigold]       steps of classes that call no callback
python -m zoo look pixart DiTPipeline       steps, likewise
python -m zoo guidance [wan flux]           scales and intervals of guidance
python -m zoo guide wan WanPipeline         scales and intervals, likewise
python -m zoo rules [wan flux]              guidance by a rule
python -m zoo rule wan WanPipeline          guidance by a rule, likewise
python -m zoo observed [wan flux]           guidance that is seen instead of known
python -m zoo report                        the pages alone, from what was measured before
python -m zoo fingerprints                  what the facts are proven on: this release
python -m zoo compat --environment NAME     a part of the zoo in this environment; writes the page
python -m zoo run wan                       without unicb: which models does a step call?
"""

from __future__ import annotations

import argparse
import time
import traceback
import warnings
from pathlib import Path

from unicb.pipelines import facts_for
from zoo import compat, compat_report, fingerprints, observed_report
from zoo.coverage import (
    CFG,
    GUIDANCE,
    OBSERVED,
    PREVIEWS,
    RULES,
    STEPS,
    STOPS,
    Subject,
    cover,
)
from zoo.entry import CASES, Entry
from zoo.families import entries, family_names
from zoo.framework import FRAMEWORKS, Framework
from zoo.measure import Meter, run
from zoo.report import write
from zoo.verdicts import BAD, verdicts

#: What is written to the pages about coverage, and what is only printed.
WRITTEN = {
    **{"coverage": CFG, "previews": PREVIEWS, "stops": STOPS},
    **{"guidance": GUIDANCE, "rules": RULES, "observed": OBSERVED, "steps": STEPS},
}
SUBJECTS = {
    **WRITTEN,
    "try": CFG,
    "show": PREVIEWS,
    "stop": STOPS,
    "guide": GUIDANCE,
    "rule": RULES,
    "look": STEPS,
}
DOCS = Path(__file__).parents[2] / "docs"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m zoo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=[*SUBJECTS, "compat", "fingerprints", "report", "run"])
    parser.add_argument("family", nargs="?", choices=family_names(), help="all, if none is needed")
    more = "classes, or titles of entries; all, if none; for what is written, more families"
    parser.add_argument("classes", nargs="*", help=more)
    parser.add_argument("--framework", choices=FRAMEWORKS, default="torch")
    parser.add_argument("--trace", action="store_true", help="show tracebacks of failures")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where coverage writes its pages")
    parser.add_argument("--environment", help="what compat calls this one on its page")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.what == "report":
        write(options.docs)
        observed_report.write(options.docs)
        compat_report.write(options.docs)
        return 0
    if options.what == "compat":
        if not options.environment:
            parser.error("compat needs --environment NAME")
        return compatibility(FRAMEWORKS[options.framework](), options.environment, options.docs)
    if options.what == "fingerprints":
        print(fingerprints.write(FRAMEWORKS[options.framework]()))
        return 0
    writes = options.what in WRITTEN
    if not writes and options.family is None:
        parser.error(f"{options.what} needs a family")
    fx = FRAMEWORKS[options.framework]()
    if writes:
        families = [options.family, *options.classes] if options.family else []
        return coverage(fx, options.docs, families, options.what)
    for entry in entries(options.family):
        asked = not options.classes or {entry.name, entry.title} & set(options.classes)
        if asked and fx.name in entry.frameworks:
            show(entry, fx, SUBJECTS.get(options.what), options.trace)
    return 0


def coverage(fx: Framework, docs: Path, families: list[str], what: str) -> int:
    """Measure everything, or some families anew; fails if anything is wrong, or by itself."""
    name = fx.name if what == "coverage" else f"{what}-{fx.name}"
    rows = cover(fx, docs / "coverage" / f"{name}.json", families, SUBJECTS[what])
    write(docs)
    observed_report.write(docs)
    bad = [name for name, verdict in verdicts(rows).items() if verdict in BAD]
    print(f"wrong or failed: {', '.join(bad) or 'none'}")
    return 1 if bad else 0


def compatibility(fx: Framework, environment: str, docs: Path) -> int:
    """Measure a part of everything here; fails if anything is wrong. What fails without unicb, in
    releases that will not be mended, is on the page."""
    rows = compat.write(fx, environment, docs / compat_report.FILE)
    compat_report.write(docs)
    judged = [(row["class"], what, row[what]) for row in rows for what in compat.SUBJECTS]
    wrong = [f"{name}: {what}" for name, what, verdict in judged if verdict == "wrong"]
    print(f"wrong: {', '.join(wrong) or 'none'}")
    return 1 if wrong else 0


def show(entry: Entry, fx: Framework, subject: Subject | None, trace: bool) -> None:
    if entry.not_built:
        print(f"{entry.title}: not built: {entry.not_built}", flush=True)
        return
    began = time.perf_counter()
    fx.seed()
    try:
        pipeline = entry.build(fx)
    except Exception as failure:
        print(f"{entry.title}: BUILD FAILED {type(failure).__name__}: {failure}", flush=True)
        if trace:
            traceback.print_exc()
        return
    for name, request in CASES.items():
        if name in entry.impossible:
            print(f"{entry.title} / {name}: impossible: {entry.impossible[name]}", flush=True)
            continue
        if subject is None or trace:
            try:
                facts = facts_for(pipeline)
                meter = Meter(fx, pipeline, facts, request.rows)
                run(entry, fx, pipeline, request, meter)
                print(f"{entry.title} / {name}: ran; calls in a step: {meter.steps[1]}", flush=True)
            except Exception:
                traceback.print_exc()
        if subject is not None:
            outcome = subject.measure(entry, fx, pipeline, request)
            print(f"{entry.title} / {name}: {outcome}", flush=True)
    print(f"{entry.title}: {time.perf_counter() - began:.1f} s", flush=True)


raise SystemExit(main())
