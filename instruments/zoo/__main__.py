"""``python -m zoo try FAMILY [CLASS ...]``: run tiny pipelines of a family, with and without a cut."""

from __future__ import annotations

import argparse
import time
import traceback
import warnings

from zoo.entry import CASES
from zoo.families import entries, family_names
from zoo.framework import FRAMEWORKS
from zoo.measure import Meter, measure, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="zoo", description=__doc__)
    parser.add_argument("what", choices=["try", "run"], help="measure the cut, or only run")
    parser.add_argument("family", choices=family_names())
    parser.add_argument("classes", nargs="*", help="classes, or titles of entries; all, if none")
    parser.add_argument("--framework", choices=FRAMEWORKS, default="torch")
    parser.add_argument("--trace", action="store_true", help="show tracebacks of failures")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    fx = FRAMEWORKS[options.framework]()
    for entry in entries(options.family):
        if options.classes and not {entry.name, entry.title} & set(options.classes):
            continue
        if options.framework not in entry.frameworks:
            continue
        if entry.not_built:
            print(f"{entry.title}: not built: {entry.not_built}", flush=True)
            continue
        began = time.perf_counter()
        fx.seed()
        try:
            pipeline = entry.build(fx)
        except Exception as failure:
            print(f"{entry.title}: BUILD FAILED {type(failure).__name__}: {failure}", flush=True)
            if options.trace:
                traceback.print_exc()
            continue
        for name, request in CASES.items():
            if name in entry.impossible:
                print(f"{entry.title} / {name}: impossible: {entry.impossible[name]}", flush=True)
                continue
            if options.what == "run" or options.trace:
                try:
                    meter = Meter(fx, pipeline, None, request.rows)
                    run(entry, fx, pipeline, request, meter)
                    print(
                        f"{entry.title} / {name}: ran; calls in a step:", meter.steps[1], flush=True
                    )
                except Exception:
                    traceback.print_exc()
                if options.what == "run":
                    continue
            outcome = measure(entry, fx, pipeline, request)
            print(f"{entry.title} / {name}: {outcome}", flush=True)
        print(f"{entry.title}: {time.perf_counter() - began:.1f} s", flush=True)


main()
